"""Head pose from landmarks and a 3-D reference face, all faces in one call.

python examples/04_head_pose.py [FOLDER OF FACES WITH 68 LANDMARKS]
"""

import sys

import asmkit

truth = None
if len(sys.argv) > 1:
    points = asmkit.read_shapes(sys.argv[1])
else:
    faces = asmkit.datasets.synthetic_faces(60, seed=1)
    points, truth = faces.points, faces.euler

# Scaled orthography is the one camera that cropping, shifting and scaling a photo do not change.
reference = asmkit.face_reference("ibug68")
pose = asmkit.solve_pnp(points, reference, asmkit.Camera.orthographic())
angles = pose.euler()  # degrees
print(f"{pose.success.sum()} of {len(points)} poses found")
print("yaw, pitch, roll of the first face:", angles[0].round(1))
print("landmarks are off by", pose.reprojection_error.mean().round(2), "pixels on average")

if truth is not None:
    # Other people's heads are not the reference: some error stays.
    print("mean error against the rendered pose:", asmkit.pose_mae(angles, truth).round(1))

# With a calibrated camera, the distance comes out too, in units of the eyes' distance.
camera = asmkit.Camera.default(width=640, height=480)
position = asmkit.solve_pnp(points, reference, camera).translation[0]
print("position before a camera (x, y, z):", position.round(1))
