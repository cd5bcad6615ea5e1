"""Landmarks that are wrong: told from the right ones, in a shape, in a set and in a batch.

python examples/09_wrong_points.py
"""

import numpy as np

import asmkit

faces = asmkit.datasets.synthetic_faces(260, seed=1).points
train, test = faces[:200], faces[200:]
model = asmkit.ShapeModel(40).fit(train)

# A tenth of the points anywhere: the robust fit believes what the others explain.
rng = np.random.default_rng(0)
wrong = rng.uniform(size=test.shape[:2]) < 0.1
given = np.where(wrong[..., None], rng.uniform(test.min(), test.max(), test.shape), test)
ways = {
    "as given": given,
    "within three standard deviations": model.constrain(given),
    "robust": model.complete(given, 0.3, robust=True),
}
for name, found in ways.items():
    print(f"{name}: off by {np.linalg.norm(found - test, axis=-1).mean():.2f} pixels")

# Is this a face at all? From 1, the mean, over 0.5, the limit, to 0.
print("plausible:", model.plausibility(np.stack([test[0], given[0]])).round(3))

# Wrong annotations in the training set are left out, and named.
spoilt = train.copy()
spoilt[:10] = spoilt[:10, ::-1]
robust = asmkit.ShapeModel(40, robust=True).fit(spoilt)
print("left out:", np.flatnonzero(robust.weights_ == 0)[:12])
