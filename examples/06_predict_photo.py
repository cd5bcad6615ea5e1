"""Find landmarks and head pose in a photo by a trained network.

python examples/06_predict_photo.py [PHOTO [NETWORK]]      leaves prediction.png

NETWORK is a shipped network or the folder of a training, by default the shipped ATPN (300-W: for
non-commercial research only). Without arguments the network that has seen rendered faces alone
looks at one.
"""

import sys

import asmkit
from asmkit.boxes import landmark_box
from asmkit.images import write_image
from asmkit.schemes import scheme

if len(sys.argv) > 1:
    network = sys.argv[2] if len(sys.argv) > 2 else "asmkit-ibug68"
    image, boxes = asmkit.read_image(sys.argv[1]), None
else:
    faces = asmkit.datasets.synthetic_faces(1, seed=2)
    network, image, boxes = "rendered-ibug68", faces.images[0], landmark_box(faces.points)

predictor = asmkit.load(network)
prediction = predictor.predict(image, boxes)  # without boxes, the face detector looks for faces
print(f"{len(prediction.points)} face(s) with {predictor.n_points} landmarks, {predictor.engine}")
print(f"licence of the weights: {predictor.license}")
for yaw, pitch, roll in prediction.pose:
    print(f"yaw {yaw:.1f}°, pitch {pitch:.1f}°, roll {roll:.1f}°")

contours = scheme(predictor.scheme).contours if predictor.scheme else ()
drawing = asmkit.plotting.draw_prediction(image, prediction, contours)
write_image("prediction.png", drawing)
