"""Read annotations, and bring their shapes into one frame.

python examples/01_read_and_align.py [FOLDER]      without one, faces are rendered
"""

import sys
import tempfile

import asmkit

scratch = tempfile.TemporaryDirectory()
folder = sys.argv[1] if len(sys.argv) > 1 else scratch.name
if folder == scratch.name:
    asmkit.datasets.synthetic_faces(40, seed=1).save(folder)

annotations = asmkit.read(folder)
first = annotations[0]
print(f"{len(annotations)} annotations, the first: {first.name}, scheme {first.scheme}")

# All points at once: (n_shapes, n_points, n_dims), x right, y down, pixel centres from 0.
shapes = asmkit.read_shapes(folder)
print("shapes:", shapes.shape, "in pixels from", shapes.min((0, 1)), "to", shapes.max((0, 1)))

# Two shapes: the similarity (scale, rotation, translation) that fits one to the other best.
fit = asmkit.similarity(shapes[0], shapes[1])
print(f"shape 0 fits shape 1 when scaled by {float(fit.scale):.3f}")
back = fit.inverse().apply(fit.apply(shapes[0]))
print(f"there and back again: off by {abs(back - shapes[0]).max():.1e} pixels")

# All shapes: generalized Procrustes analysis.
result = asmkit.generalized_procrustes(shapes)
spread = ((result.aligned - result.mean) ** 2).sum((1, 2)) ** 0.5
print(f"aligned in {result.n_iterations} rounds, converged: {result.converged}")
print(f"distance from the mean shape, in units of its size: {spread.mean():.3f}")
