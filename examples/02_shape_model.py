"""Fit a shape model, look at its modes, make shapes that were never seen.

python examples/02_shape_model.py [FOLDER]      leaves modes.png and model.npz
"""

import sys
import tempfile

import numpy as np

import asmkit

scratch = tempfile.TemporaryDirectory()
folder = sys.argv[1] if len(sys.argv) > 1 else scratch.name
if folder == scratch.name:
    asmkit.datasets.synthetic_faces(80, seed=1).save(folder)

# With the mirror images of the shapes, where the landmark scheme is known: a model without a side.
scheme = asmkit.read(folder)[0].scheme
shapes = asmkit.read_shapes(folder)
model = asmkit.ShapeModel(n_components=0.98, mirror=scheme).fit(shapes)
print(f"{model.n_components_} modes hold 98 % of the variance of {len(shapes)} shapes")
print("shares of the first:", np.round(model.explained_variance_ratio_[:4], 3))

# A shape is a mean, a pose and a few coefficients.
coefficients = model.transform(shapes)
again = model.transform(model.inverse_transform(coefficients))
print(f"coefficients {coefficients.shape}, recovered to {abs(again - coefficients).max():.1e}")
print("least usual shape: number", int(model.mahalanobis(shapes).argmax()))
print("new shapes:", model.sample(3, random_state=0).shape)

model.save("model.npz")
asmkit.plotting.save_figure(asmkit.plotting.plot_modes(model), "modes.png")
