"""Find landmarks and head pose in a photo by a trained network.

python examples/06_predict_photo.py [RUN PHOTO]      leaves prediction.png

Without arguments a toy network is trained first, and looks at a rendered face.
"""

import sys
import tempfile
from pathlib import Path

import asmkit
from asmkit.boxes import landmark_box
from asmkit.images import write_image
from asmkit.schemes import scheme

if len(sys.argv) > 2:
    run, image, boxes = sys.argv[1], asmkit.read_image(sys.argv[2]), None
else:
    from asmkit.nn import Recipe, train

    scratch = tempfile.TemporaryDirectory()
    faces = asmkit.datasets.synthetic_faces(33, seed=1, size=96)
    faces.save(scratch.name)
    recipe = Recipe(width=0.35, input_size=32, epochs=3, batch_size=8, warmup_steps=4)
    run = train(scratch.name, Path(scratch.name) / "run", recipe)
    image, boxes = faces.images[-1], landmark_box(faces.points[-1:])

predictor = asmkit.load(run)
prediction = predictor.predict(image, boxes)  # without boxes, the face detector looks for faces
print(f"{len(prediction.points)} face(s) with {predictor.n_points} landmarks, {predictor.engine}")
for yaw, pitch, roll in prediction.pose:
    print(f"yaw {yaw:.1f}°, pitch {pitch:.1f}°, roll {roll:.1f}°")

contours = scheme(predictor.scheme).contours if predictor.scheme else ()
drawing = asmkit.plotting.draw_prediction(image, prediction, contours)
write_image("prediction.png", drawing)
