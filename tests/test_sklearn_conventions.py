"""A shape model is a scikit-learn estimator whose samples are shapes."""

from __future__ import annotations

import numpy as np
import pytest
from shape_families import family
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline

from asmkit import ShapeModel

PARAMETERS = {"n_components": 3, "align": "box", "mirror": [1, 0, 2], "robust": True}


def two_kinds(rng, n=40):
    """Shapes of two kinds that differ along one direction, and their kinds."""
    shapes = family(rng, n, posed=False, spread=0.03)
    kinds = np.arange(n) % 2
    shapes[kinds == 1, :3] += 0.5
    return shapes, kinds


def test_parameters_are_stored_as_given():
    model = ShapeModel(**PARAMETERS)
    found = model.get_params()
    assert found.items() >= PARAMETERS.items()
    assert found["mirror"] is PARAMETERS["mirror"]


def test_set_params_sets_and_refuses_what_it_does_not_know():
    model = ShapeModel()
    assert model.set_params(**PARAMETERS) is model
    assert model.get_params().items() >= PARAMETERS.items()
    with pytest.raises(ValueError, match="sigma"):
        model.set_params(sigma=3)


def test_a_clone_has_the_parameters_and_nothing_learnt(rng):
    model = ShapeModel(4, align="rigid").fit(family(rng))
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        copy.transform(family(rng))


def test_fit_leaves_parameters_and_shapes_alone(rng):
    shapes = family(rng)
    before, model = shapes.copy(), ShapeModel(0.9)
    parameters = model.get_params()
    assert model.fit(shapes) is model
    assert model.get_params() == parameters
    np.testing.assert_array_equal(shapes, before)
    learnt = {name for name in vars(model) if name not in parameters}
    assert all(name.endswith("_") and not name.startswith("_") for name in learnt)


def test_a_second_fit_forgets_the_first(rng):
    first, second = family(rng), family(rng)
    again = ShapeModel(4).fit(first).fit(second)
    np.testing.assert_array_equal(again.components_, ShapeModel(4).fit(second).components_)


def test_fit_transform_is_fit_and_transform(rng):
    shapes, kinds = two_kinds(rng)
    expected = ShapeModel(4).fit(shapes).transform(shapes)
    np.testing.assert_allclose(ShapeModel(4).fit_transform(shapes), expected, atol=1e-12)
    np.testing.assert_allclose(ShapeModel(4).fit_transform(shapes, kinds), expected, atol=1e-12)


def test_a_pipeline_tells_two_kinds_of_shapes(rng):
    shapes, kinds = two_kinds(rng)
    # Raw coefficients are small where a shape has size 1: the penalty must not drown them.
    line = Pipeline([("asm", ShapeModel(4)), ("clf", LogisticRegression(C=1e4))])
    line.fit(shapes[:20], kinds[:20])
    assert line.score(shapes[20:], kinds[20:]) == 1
    expected = line["clf"].predict(line["asm"].transform(shapes))
    np.testing.assert_array_equal(line.predict(shapes), expected)


def test_a_pipeline_can_be_searched(rng):
    shapes, kinds = two_kinds(rng)
    line = Pipeline([("asm", ShapeModel()), ("clf", LogisticRegression(C=1e4))])
    search = GridSearchCV(line, {"asm__n_components": [1, 4], "asm__align": ["box", "similarity"]})
    search.fit(shapes, kinds)
    assert search.best_score_ == 1
    assert len(search.cv_results_["params"]) == 4


def test_a_search_by_likelihood_finds_the_modes_that_were_planted(rng):
    """Three strong modes in even noise: held-out shapes are most likely with three modes."""
    mean = 10 * rng.normal(size=12)
    modes = np.linalg.qr(rng.normal(size=(12, 12)))[0][:3]
    rows = mean + 2 * rng.normal(size=(120, 3)) @ modes + 0.1 * rng.normal(size=(120, 12))
    shapes = rows.reshape(120, 6, 2)
    grid = {"n_components": [1, 2, 3, 4, 6]}
    search = GridSearchCV(ShapeModel(align="none"), grid, error_score="raise").fit(shapes)
    assert search.best_params_ == {"n_components": 3}
    assert search.best_estimator_.n_components_ == 3


def test_the_score_is_the_mean_log_likelihood(rng):
    shapes = family(rng)
    model = ShapeModel(4).fit(shapes[:40])
    expected = np.mean(model.log_likelihood(shapes[40:]))
    assert model.score(shapes[40:]) == pytest.approx(expected, rel=1e-12)
    scores = cross_val_score(ShapeModel(4), shapes, cv=3, error_score="raise")
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


SHAPES = np.random.default_rng(0).normal(size=(4, 6, 2))
CALLS = {
    "transform": lambda model: model.transform(SHAPES),
    "inverse_transform": lambda model: model.inverse_transform(np.zeros(3)),
    "smooth": lambda model: model.smooth(SHAPES),
    "constrain": lambda model: model.constrain(SHAPES),
    "sample": lambda model: model.sample(2),
    "mahalanobis": lambda model: model.mahalanobis(SHAPES),
    "truncate": lambda model: model.truncate(1),
    "save": lambda model: model.save("never-written.npz"),
    "clamped": lambda model: model.clamped(SHAPES),
    "merge": lambda model: model.merge(),
    "plausibility": lambda model: model.plausibility(SHAPES),
    "credible_regions": lambda model: model.credible_regions(SHAPES[0]),
    "complete": lambda model: model.complete(SHAPES[0]),
    "posterior": lambda model: model.posterior(SHAPES[0]),
    "log_likelihood": lambda model: model.log_likelihood(SHAPES),
    "score": lambda model: model.score(SHAPES),
}


@pytest.mark.parametrize("name", CALLS)
def test_before_fit_every_method_says_so(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        CALLS[name](ShapeModel())
    assert not list(tmp_path.iterdir())


def test_all_public_methods_are_known_here():
    """A new method that needs a fitted model belongs in the table above."""
    needs_no_fit = {"fit", "fit_transform", "partial_fit", "load", "from_statistics"}
    own = {name for name, value in vars(ShapeModel).items() if callable(value)}
    own |= {name for name, value in vars(ShapeModel).items() if isinstance(value, classmethod)}
    assert {name for name in own if not name.startswith("_")} - needs_no_fit == set(CALLS)
