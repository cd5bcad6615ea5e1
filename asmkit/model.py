"""Linear shape models: a mean shape and the modes in which shapes differ from it.

A shape is ``x = T(μ + Σ b_i φ_i)``: T a similarity, μ centred and of centroid size 1, the modes
φ_i orthonormal, orthogonal to translation, scaling and rotation of μ, and the coefficients b_i
uncorrelated with variances λ_i. The pose of a shape is ``T = argmin ‖x − T(μ)‖``, so
``T⁻¹x − μ`` has no part along the similarities and the coefficients are ``b = Φᵀ(T⁻¹x − μ)``.
"""

from __future__ import annotations

import copy
import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from asmkit._check import Floats, as_batch, as_shapes
from asmkit._files import replacing
from asmkit.alignment import Similarity, generalized_procrustes, similarity
from asmkit.errors import FormatError
from asmkit.priors import Box, Prior

__all__ = ["ShapeModel"]

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _BoxPose:
    """Where the paper's frame puts a shape: ``x = centre + size · y``, along each axis."""

    centre: Float64
    size: Float64

    def apply(self, shapes: Float64) -> Float64:
        return np.asarray(self.centre + self.size * shapes)

    def undo(self, shapes: Float64) -> Float64:
        return np.asarray((shapes - self.centre) / self.size)


def _box_pose(shapes: Float64) -> _BoxPose:
    low, high = shapes.min(axis=-2, keepdims=True), shapes.max(axis=-2, keepdims=True)
    return _BoxPose((low + high) / 2, high - low)


class ShapeModel(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Statistical shape model (point distribution model) of 2-D or 3-D landmarks."""

    mean_: Float64
    components_: Float64
    explained_variance_: Float64
    explained_variance_ratio_: Float64
    noise_variance_: float
    n_components_: int

    def __init__(
        self, n_components: float = 0.98, align: str = "similarity", mirror: Any = None
    ) -> None:
        self.n_components = n_components
        self.align = align
        self.mirror = mirror

    def fit(self, shapes: npt.ArrayLike, y: None = None) -> Self:
        batch = as_shapes(shapes, min_shapes=2).astype(np.float64)
        n, p, d = batch.shape
        permutation = self._permutation(p)
        if permutation is not None:
            batch = np.concatenate([batch, _mirrored(batch, permutation)])
        if self.align == "similarity":
            result = generalized_procrustes(batch)
            if not result.converged:
                warnings.warn("the mean shape did not converge", ConvergenceWarning, stacklevel=2)
            mean = result.mean
            if permutation is not None:
                mean = _symmetric(mean, permutation)
            tangent = similarity(mean, batch).inverse().apply(batch) - mean
            n_fixed = 4 if d == 2 else 7
        else:
            aligned = _box_pose(batch).undo(batch)
            mean = aligned.mean(axis=0)
            tangent = aligned - mean
            n_fixed = 0
        _, values, modes = np.linalg.svd(tangent.reshape(len(batch), -1), full_matrices=False)
        variances = values**2 / (len(batch) - 1)
        share = np.cumsum(variances) / variances.sum()
        if isinstance(self.n_components, int):
            k = self.n_components
        else:
            k = int(np.searchsorted(share, self.n_components - 1e-12)) + 1
        self.mean_ = mean
        self.components_ = modes[:k]
        self.explained_variance_ = variances[:k]
        self.explained_variance_ratio_ = variances[:k] / variances.sum()
        self.total_variance_ = float(variances.sum())
        left = p * d - n_fixed - k
        self.noise_variance_ = float(variances[k:].sum() / left) if left > 0 else 0.0
        self.n_components_ = k
        self.n_samples_ = len(batch)
        self.mirror_ = permutation
        self.scheme_ = None if self.mirror is None else getattr(self.mirror, "name", None)
        if isinstance(self.mirror, str):
            self.scheme_ = self.mirror
        return self

    def _permutation(self, n_points: int) -> npt.NDArray[np.intp] | None:
        if self.mirror is None:
            return None
        if isinstance(self.mirror, str) or hasattr(self.mirror, "mirror"):
            from asmkit.schemes import scheme

            return np.asarray(scheme(self.mirror).mirror)
        return np.asarray(self.mirror)

    def transform(self, shapes: npt.ArrayLike) -> Floats:
        batch, axes = self._batch(shapes)
        coefficients, _ = self._project(batch)
        return coefficients.reshape(*axes, -1).astype(batch.dtype, copy=False)

    def inverse_transform(self, coefficients: npt.ArrayLike) -> Floats:
        check_is_fitted(self)
        b = np.asarray(coefficients)
        k = b.shape[-1]
        flat = b @ self.components_[:k]
        return np.asarray(self.mean_ + flat.reshape(*b.shape[:-1], *self.mean_.shape))

    def smooth(
        self,
        shapes: npt.ArrayLike,
        n_components: float | None = None,
        prior: Prior = Box(3.0),  # noqa: B008  # a frozen value
    ) -> Floats:
        batch, axes = self._batch(shapes)
        k = self._count(n_components)
        b, pose = self._project(batch)
        b = prior.limit(b[:, :k], self.explained_variance_[:k])
        out = pose.apply(self.inverse_transform(b))
        return out.reshape(*axes, *self.mean_.shape).astype(batch.dtype, copy=False)

    def _count(self, n_components: float | None) -> int:
        if n_components is None:
            return self.n_components_
        if isinstance(n_components, int):
            return n_components
        share = np.cumsum(self.explained_variance_ratio_)
        return int(np.searchsorted(share, n_components - 1e-12)) + 1

    def _batch(self, shapes: npt.ArrayLike) -> tuple[Floats, tuple[int, ...]]:
        check_is_fitted(self)
        return as_batch(shapes, n_points=self.mean_.shape[0], n_dims=self.mean_.shape[1])

    def _project(self, batch: Floats) -> tuple[Float64, Similarity | _BoxPose]:
        batch = batch.astype(np.float64)
        pose: Similarity | _BoxPose
        if self.align == "similarity":
            pose = similarity(self.mean_, batch)
            model = pose.inverse().apply(batch)
        else:
            pose = _box_pose(batch)
            model = pose.undo(batch)
        flat = (model - self.mean_).reshape(len(batch), -1)
        return flat @ self.components_.T, pose

    def truncate(self, n_components: float) -> ShapeModel:
        k = self._count(n_components)
        model = copy.copy(self)
        model.components_ = self.components_[:k]
        model.explained_variance_ = self.explained_variance_[:k]
        model.explained_variance_ratio_ = self.explained_variance_ratio_[:k]
        model.n_components_ = k
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        check_is_fitted(self)
        with replacing(path) as part, part.open("wb") as stream:
            np.savez(
                stream,
                format="asmkit shape model",
                version=1,
                align=self.align,
                mirror=np.zeros(0, int) if self.mirror_ is None else self.mirror_,
                scheme=self.scheme_ or "",
                n_components=self.n_components,
                mean=self.mean_,
                components=self.components_,
                explained_variance=self.explained_variance_,
                total_variance=self.total_variance_,
                noise_variance=self.noise_variance_,
                n_samples=self.n_samples_,
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ShapeModel:
        try:
            with np.load(Path(path), allow_pickle=False) as fields:
                data = dict(fields)
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise FormatError(f"{path}: not a shape model ({error})") from error
        mirror = data["mirror"] if data["mirror"].size else None
        scheme = str(data["scheme"]) or None
        model = cls(data["n_components"].item(), str(data["align"]), scheme or mirror)
        model.mirror_, model.scheme_ = mirror, scheme
        model.mean_, model.components_ = data["mean"], data["components"]
        model.explained_variance_ = data["explained_variance"]
        model.total_variance_ = data["total_variance"].item()
        model.explained_variance_ratio_ = model.explained_variance_ / model.total_variance_
        model.noise_variance_ = data["noise_variance"].item()
        model.n_components_ = len(model.components_)
        model.n_samples_ = data["n_samples"].item()
        return model


def _mirrored(shapes: Float64, permutation: npt.NDArray[np.intp]) -> Float64:
    centred = shapes - shapes.mean(axis=-2, keepdims=True)
    centred[..., 0] *= -1
    return np.asarray(centred[..., permutation, :])


def _symmetric(mean: Float64, permutation: npt.NDArray[np.intp]) -> Float64:
    """Turn the mean so that it is its own mirror image."""
    if mean.shape[1] == 2:
        even = mean.astype(np.float64)
        z = even[:, 0] + 1j * even[:, 1]
        m = -np.conj(z[permutation])
        turn = np.exp(0.5j * np.angle(np.vdot(z, m)))
        if turn.real < 0:
            turn = -turn
        z = z * turn
        z = (z - np.conj(z[permutation])) / 2
        z /= np.linalg.norm(z)
        return np.stack([z.real, z.imag], -1)
    raise NotImplementedError
