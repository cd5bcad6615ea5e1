"""Landmarks that are hidden: where they are, and how sure that is.

python examples/08_hidden_points.py
"""

import numpy as np

import asmkit

faces = asmkit.datasets.synthetic_faces(260, seed=1).points
train, test = faces[:200], faces[200:]
model = asmkit.ShapeModel(40, mirror="ibug68").fit(train)

# Hidden: NaN. The pose comes from the points that are seen, too.
jaw = slice(0, 17)
given = test.copy()
given[:, jaw] = np.nan
sigma = 0.3  # pixels that a point which is seen may be off
off = np.linalg.norm(model.complete(given, sigma) - test, axis=-1)[:, jaw].mean()
print(f"hidden jaws are found to {off:.2f} pixels")

# An ellipse for each landmark, that holds it with a stated probability.
regions = model.credible_regions(given, sigma, level=0.9)
half = regions.axes()[0][:, jaw].mean()
held = regions.contains(test)[:, jaw].mean()
print(f"90 % regions, {half:.2f} pixels in half axis, hold {held:.0%} of the hidden points")

# What is left possible of one face is a shape model again: draw from it, or tell it more.
posterior = model.posterior(given[0], sigma)
chin = np.full_like(test[0], np.nan)
chin[8] = test[0, 8]
for name, told in {"without": posterior, "with": posterior.posterior(chin, sigma)}.items():
    draws = told.sample(200, random_state=0)
    print(f"{name} the chin, drawn jaws differ by {draws[:, jaw].std(axis=0).mean():.2f} pixels")
