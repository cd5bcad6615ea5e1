"""Smooth annotations by a shape model: the easier targets of the ASM-assisted loss.

python examples/03_smooth_labels.py [FOLDER]      leaves the folder smoothed/
"""

import sys
import tempfile
from dataclasses import replace

import asmkit

scratch = tempfile.TemporaryDirectory()
folder = sys.argv[1] if len(sys.argv) > 1 else scratch.name
if folder == scratch.name:
    asmkit.datasets.synthetic_faces(80, seed=1).save(folder)

annotations = asmkit.read(folder)
shapes = asmkit.read_shapes(folder)
model = asmkit.ShapeModel(0.9, mirror=annotations[0].scheme).fit(shapes)

# One pass: align, project on the modes, clamp to ±3 standard deviations, return.
smoothed = asmkit.smooth_targets(model, shapes)
print(smoothed.report)

# Fewer modes, smoother targets.
for share in (0.5, 0.7, 0.9):
    moved = asmkit.smooth_targets(model, shapes, share).report.displacement_per_shape.mean()
    print(f"{share:.0%} of the variance: labels move by {100 * moved:.2f} %")

pairs = zip(annotations, smoothed.shapes, strict=True)
asmkit.write("smoothed", [replace(annotation, points=points) for annotation, points in pairs])
