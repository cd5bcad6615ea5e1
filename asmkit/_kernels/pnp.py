"""Pose of one rigid model from its image points, many images at once: the loops.

The model comes in its principal frame: centred, of unit size, its axes by falling second moment.
A pose is one array (4, 3): the rotation's three rows, then the translation.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["solve"]

Array = npt.NDArray[np.float64]

_options: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    # Neither nnan nor ninf: a NaN has to reach the test that marks its shape as failed.
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}
# Called from kernels alone and compiled into them: no entry from Python, no file of its own. All
# are inlined: one left as a call would exist twice, compiled by itself and once more inside the
# kernel, and rounded differently by the two. The process that compiles links the first, one that
# loads the kernel from the cache has only the second: same input, other last digits.
_inner_options = {
    **_options,
    "forceinline": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
_inner = numba.njit(**_inner_options)


@_inner
def _affine_fit(
    points: Array,
    i: int,
    camera: Array,
    model: Array,
    moments: Array,
    image: Array,
    A: Array,
    centroid: Array,
) -> float:
    """Least-squares affine image of the model, ``A model + centroid``; the image's variance.

    ``image`` receives the points for focal length 1: from the principal point under perspective,
    from their centroid under orthography, which does not care where a shape lies.
    """
    n_points, perspective = points.shape[1], camera[5]
    variance = 0.0
    for d in range(2):
        # Offsets from the first point: a shape of equal points then gives exact zeros.
        k, origin = 1.0 / camera[d], points[i, 0, d]
        offset = (origin - camera[2 + d]) * k
        for j in range(n_points):
            image[d, j] = (points[i, j, d] - origin) * k
        total = squares = a = b = c = 0.0
        for j in range(n_points):
            u = image[d, j]
            total += u
            squares += u * u
            a += u * model[0, j]
            b += u * model[1, j]
            c += u * model[2, j]
        total /= n_points
        centroid[d] = offset + total
        variance += squares / n_points - total * total
        shift = perspective * offset - (1.0 - perspective) * total
        for j in range(n_points):
            image[d, j] += shift
        for j in range(n_points, model.shape[1]):
            image[d, j] = 0.0
        A[d, 0] = a / (n_points * moments[0])
        A[d, 1] = b / (n_points * moments[1])
        A[d, 2] = c / (n_points * moments[2]) if moments[2] > 0.0 else 0.0
    return variance


@_inner
def _copy(source: Array, target: Array) -> None:
    for i in range(4):
        for j in range(3):
            target[i, j] = source[i, j]


@_inner
def _planar_pose(A: Array, side: float, pose: Array) -> tuple[float, float]:
    """Scale and rotation that map the model's principal plane as ``A`` does.

    There are two; ``side`` +1 takes the one that agrees better with the third column of ``A``.
    Returns the scale and the square of the depth, in the image's unit, by which the two differ.
    """
    a, b, c, d = A[0, 0], A[0, 1], A[1, 0], A[1, 1]
    half = 0.5 * (a * a + b * b - c * c - d * d)
    r = a * c + b * d
    h = math.sqrt(half * half + r * r)
    scale = math.sqrt(a * a + b * b - half + h)
    # What the plane's image lacks along its minor axis (x, y) is depth.
    x, y = half - h, r
    if half > 0.0:
        x, y = -r, half + h
    norm = scale * math.sqrt(x * x + y * y)
    depth = side * math.sqrt(2.0 * h) / norm if norm > 0.0 else 0.0
    if x * A[0, 2] + y * A[1, 2] < 0.0:
        depth = -depth
    k = 1.0 / scale
    a, b, c, d, x, y = k * a, k * b, k * c, k * d, depth * x, depth * y
    pose[0, 0], pose[0, 1], pose[0, 2] = a, b, x
    pose[1, 0], pose[1, 1], pose[1, 2] = c, d, y
    pose[2, 0], pose[2, 1], pose[2, 2] = b * y - x * d, x * c - a * y, a * d - b * c
    return scale, 2.0 * h


@_inner
def _turn(pose: Array, step: Array, turned: Array) -> None:
    """``turned = C R`` with Cayley's rotation C, which equals exp(step) to second order."""
    x, y, z = 0.5 * step[0], 0.5 * step[1], 0.5 * step[2]
    k = 2.0 / (1.0 + x * x + y * y + z * z)
    for j in range(3):
        a, b, c = pose[0, j], pose[1, j], pose[2, j]
        u, v, w = y * c - z * b, z * a - x * c, x * b - y * a
        turned[0, j] = a + k * (u + y * w - z * v)
        turned[1, j] = b + k * (v + z * u - x * w)
        turned[2, j] = c + k * (w + x * v - y * u)


@_inner
def _invert(S: Array) -> bool:
    """Invert a symmetric matrix (3, 3), upper triangle given, in place; False if indefinite."""
    a, b, c, d, e, f = S[0, 0], S[0, 1], S[0, 2], S[1, 1], S[1, 2], S[2, 2]
    p, q, r, minor = d * f - e * e, c * e - b * f, b * e - c * d, a * d - b * b
    determinant = a * p + b * q + c * r
    k = 1.0 / determinant
    S[0, 0] = k * p
    S[1, 1] = k * (a * f - c * c)
    S[2, 2] = k * minor
    S[0, 1] = S[1, 0] = k * q
    S[0, 2] = S[2, 0] = k * r
    S[1, 2] = S[2, 1] = k * (b * c - a * e)
    return bool(a > 0.0 and minor > 0.0 and determinant > 0.0)


@_inner
def _start(
    A: Array,
    centroid: Array,
    perspective: float,
    reach: float,
    side: float,
    pose: Array,
    local: Array,
) -> float:
    """Weak-perspective pose along the ray to the centroid; how far the two of them are apart."""
    u, v = perspective * centroid[0], perspective * centroid[1]
    z = 1.0 / math.sqrt(1.0 + u * u + v * v)
    x, y, k = u * z, v * z, 1.0 / (1.0 + z)
    # The least rotation that takes the ray to the optical axis.
    a, b, c = 1.0 - x * x * k, -x * y * k, 1.0 - y * y * k
    for j in range(3):
        local[0, j] = z * (a * A[0, j] + b * A[1, j])
        local[1, j] = z * (b * A[0, j] + c * A[1, j])
    scale, apart = _planar_pose(local, side, pose)
    for j in range(3):
        p, q, r = pose[0, j], pose[1, j], pose[2, j]
        pose[0, j] = a * p + b * q + x * r
        pose[1, j] = b * p + c * q + y * r
        pose[2, j] = z * r - x * p - y * q
    depth = z / scale
    if depth < 1.1 * reach:
        depth = 1.1 * reach
    pose[3, 0], pose[3, 1], pose[3, 2] = u * depth, v * depth, depth
    return float(apart / (z * z))


@_inner
def _gradient(
    model: Array, present: Array, image: Array, camera: Array, pose: Array, g: Array
) -> float:
    """Gradient of the halved objective at ``pose``; the objective, a sum of squares.

    Unknowns: a turn of the model about its centre, in the camera frame, then a shift. ``present``
    is 0 for padding, else 1.
    """
    ratio, perspective = camera[4], camera[5]
    r00, r01, r02 = pose[0, 0], pose[0, 1], pose[0, 2]
    r10, r11, r12 = pose[1, 0], pose[1, 1], pose[1, 2]
    r20, r21, r22 = pose[2, 0], pose[2, 1], pose[2, 2]
    tx, ty, tz = pose[3, 0], pose[3, 1], pose[3, 2]
    g0 = g1 = g2 = g3 = g4 = g5 = squares = 0.0
    for j in range(model.shape[1]):
        X, Y, Z = model[0, j], model[1, j], model[2, j]
        a = r00 * X + r01 * Y + r02 * Z
        b = r10 * X + r11 * Y + r12 * Z
        c = r20 * X + r21 * Y + r22 * Z
        w = present[j] / (perspective * c + tz)
        x, y = w * (a + tx), w * (b + ty)
        ex, ey = x - image[0, j], y - image[1, j]
        squares += ex * ex + ratio * ey * ey
        # A force on each point and its torque about the model's centre.
        fx, fy = w * ex, w * ratio * ey
        fz = -x * fx - y * fy
        g3 += fx
        g4 += fy
        g5 += fz
        fz *= perspective
        g0 += b * fz - c * fy
        g1 += c * fx - a * fz
        g2 += a * fy - b * fx
    g[0], g[1], g[2], g[3], g[4], g[5] = g0, g1, g2, g3, g4, g5
    return float(squares)


@_inner
def _gauss_newton_matrix(
    model: Array, present: Array, camera: Array, pose: Array, H: Array
) -> None:
    """Upper triangle of J'J for the unknowns of :func:`_gradient`."""
    ratio, perspective = camera[4], camera[5]
    r00, r01, r02 = pose[0, 0], pose[0, 1], pose[0, 2]
    r10, r11, r12 = pose[1, 0], pose[1, 1], pose[1, 2]
    r20, r21, r22 = pose[2, 0], pose[2, 1], pose[2, 2]
    tx, ty, tz = pose[3, 0], pose[3, 1], pose[3, 2]
    h00 = h01 = h02 = h03 = h04 = h05 = h11 = h12 = h13 = h14 = h15 = h22 = h23 = h24 = 0.0
    h33 = h35 = h45 = h55 = 0.0
    for j in range(model.shape[1]):
        X, Y, Z = model[0, j], model[1, j], model[2, j]
        a = r00 * X + r01 * Y + r02 * Z
        b = r10 * X + r11 * Y + r12 * Z
        c = r20 * X + r21 * Y + r22 * Z
        w = present[j] / (perspective * c + tz)
        x, y = w * (a + tx), w * (b + ty)
        a, b, c = w * a, w * b, w * c
        wx, wy = w * x, w * y
        # The Jacobian's rows: (-x b, p, -b, w, 0, -w x) and (-q, y a, a, 0, w, -w y).
        x, y = perspective * x, perspective * y
        p, q, xb, ya = c + x * a, c + y * b, x * b, y * a
        ra, rq, rya, rwy = ratio * a, ratio * q, ratio * ya, ratio * wy
        h00 += xb * xb + q * rq
        h01 -= xb * p + q * rya
        h02 += xb * b - ra * q
        h03 -= xb * w
        h04 -= rq * w
        h05 += xb * wx + rq * wy
        h11 += p * p + ya * rya
        h12 += ya * ra - b * p
        h13 += p * w
        h14 += rya * w
        h15 -= p * wx + rya * wy
        h22 += b * b + a * ra
        h23 -= b * w
        h24 += ra * w
        h33 += w * w
        h35 -= w * wx
        h45 -= w * rwy
        h55 += wx * wx + wy * rwy
    H[0, 0], H[0, 1], H[0, 2], H[0, 3], H[0, 4], H[0, 5] = h00, h01, h02, h03, h04, h05
    H[1, 1], H[1, 2], H[1, 3], H[1, 4], H[1, 5] = h11, h12, h13, h14, h15
    H[2, 2], H[2, 3], H[2, 4], H[2, 5] = h22, h23, h24, -h03 - h14
    H[3, 3], H[3, 4], H[3, 5] = h33, 0.0, h35
    H[4, 4], H[4, 5], H[5, 5] = ratio * h33, h45, h55


@_inner
def _factor(H: Array, damping: float, S: Array, T: Array, K: Array) -> bool:
    """Block inverse of the damped H: T of its lower block, K = H_upper T, S of the complement."""
    for i in range(3):
        for j in range(i, 3):
            T[i, j] = H[3 + i, 3 + j]
        T[i, i] *= 1.0 + damping
    definite = _invert(T)
    for i in range(3):
        for j in range(3):
            K[i, j] = H[i, 3] * T[0, j] + H[i, 4] * T[1, j] + H[i, 5] * T[2, j]
        for j in range(i + 1):
            S[j, i] = H[j, i] - (K[i, 0] * H[j, 3] + K[i, 1] * H[j, 4] + K[i, 2] * H[j, 5])
        S[i, i] += damping * H[i, i]
    return bool(_invert(S) and definite)


@_inner
def _descend(g: Array, S: Array, T: Array, K: Array, step: Array) -> float:
    """``step = -H^-1 g`` by the factors of H; returns the predicted decrease."""
    x = K[0, 0] * g[3] + K[0, 1] * g[4] + K[0, 2] * g[5] - g[0]
    y = K[1, 0] * g[3] + K[1, 1] * g[4] + K[1, 2] * g[5] - g[1]
    z = K[2, 0] * g[3] + K[2, 1] * g[4] + K[2, 2] * g[5] - g[2]
    for i in range(3):
        step[i] = S[i, 0] * x + S[i, 1] * y + S[i, 2] * z
    decrease = 0.0
    for i in range(3):
        own = T[i, 0] * g[3] + T[i, 1] * g[4] + T[i, 2] * g[5]
        step[3 + i] = -own - K[0, i] * step[0] - K[1, i] * step[1] - K[2, i] * step[2]
        decrease -= g[i] * step[i] + g[3 + i] * step[3 + i]
    return float(decrease)


@_inner
def _in_front(model: Array, pose: Array, reach: float) -> bool:
    """Whether every point has positive depth; none is farther than ``reach`` from the centre."""
    nearest, behind = pose[3, 2], 1e-3 * reach
    if nearest <= 1.001 * reach:
        for j in range(model.shape[1]):
            z = pose[2, 0] * model[0, j] + pose[2, 1] * model[1, j] + pose[2, 2] * model[2, j]
            if z + pose[3, 2] < nearest:
                nearest = z + pose[3, 2]
    return bool(nearest > behind)


@_inner
def _refine(
    model: Array,
    present: Array,
    image: Array,
    camera: Array,
    reach: float,
    floor: float,
    pose: Array,
    trial: Array,
    H: Array,
    S: Array,
    T: Array,
    K: Array,
    g: Array,
    g_trial: Array,
    step: Array,
) -> float:
    """Levenberg-Marquardt to convergence; returns the objective, which rises in no step.

    Where a step is small the matrix is kept for the next: its change would be of no account.
    """
    objective = _gradient(model, present, image, camera, pose, g)
    damping, definite, renew = 0.0, True, True
    for _ in range(200):
        if renew:
            _gauss_newton_matrix(model, present, camera, pose, H)
            definite = _factor(H, damping, S, T, K)
        decrease = _descend(g, S, T, K, step)
        _turn(pose, step, trial)
        for j in range(3):
            trial[3, j] = pose[3, j] + step[3 + j]
        new = math.inf
        if definite and _in_front(model, trial, reach):
            new = _gradient(model, present, image, camera, trial, g_trial)
        # The last step is so small that only rounding could speak against it.
        last = definite and damping == 0.0 and decrease <= 1e-12 * objective + floor
        if new <= objective or (last and new < math.inf):
            objective = new
            _copy(trial, pose)
            renew = damping > 0.0 or decrease > 0.05 * objective
            damping = 0.1 * damping if damping > 1e-5 else 0.0
            for k in range(6):
                g[k] = g_trial[k]
        else:
            renew = True
            damping = 10.0 * damping + 1e-3
        if last or damping > 1e9:
            break
    return float(objective)


@numba.njit(cache=True, **_options)
def solve(
    points: Array,
    camera: Array,
    model: Array,
    present: Array,
    moments: Array,
    radius: float,
    back: Array,
    start: int,
    stop: int,
    R: Array,
    t: Array,
    rms: Array,
) -> None:
    """Poses of ``points[start:stop]`` into ``R, t, rms``; NaN where there is none.

    ``camera`` holds fx, fy, cx, cy, (fy / fx)^2, the weight of the second coordinate, and 1 for
    perspective, 0 for scaled orthography. ``back`` (5, 3) leads from the principal frame to the
    model's own: its axes as columns, its unit of length (three times), its centre. The model may be
    longer than the shapes: ``present`` is 1 for their points, then 0.
    """
    n_points = points.shape[1]
    image, A, local = np.empty((2, model.shape[1])), np.empty((2, 3)), np.empty((2, 3))
    pose, best, trial = np.empty((4, 3)), np.empty((4, 3)), np.empty((4, 3))
    S, T, K, H = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((6, 6))
    centroid, g, g_trial, step = np.empty(2), np.empty(6), np.empty(6), np.empty(6)
    reach = camera[5] * radius
    for i in range(start, stop):
        variance = _affine_fit(points, i, camera, model, moments, image, A, centroid)
        lowest = math.inf
        best[:] = math.nan
        for side in (1.0, -1.0):
            if not 0.0 < variance < math.inf:
                break
            apart = _start(A, centroid, camera[5], reach, side, pose, local)
            objective = _refine(
                *(model, present, image, camera, reach, 1e-20 * n_points * variance),
                *(pose, trial, H, S, T, K, g, g_trial, step),
            )
            if objective < lowest:
                lowest = objective
                _copy(pose, best)
            # The pose mirrored in depth costs about 4 n_points moments[2] apart: it cannot win
            # where the noise is far below.
            if lowest < 0.1 * n_points * moments[2] * apart:
                break
        rms[i] = camera[0] * math.sqrt(lowest / n_points) if lowest < math.inf else math.nan
        if camera[5] == 0.0:
            best[3, 0] += centroid[0] * best[3, 2]
            best[3, 1] += centroid[1] * best[3, 2]
        for j in range(3):
            t[i, j] = back[3, j] * best[3, j]
            # Under orthography t_z is the scale, wherever the model's origin lies.
            moves = camera[5] if j == 2 else 1.0
            for k in range(3):
                a, b, c = back[k, 0], back[k, 1], back[k, 2]
                R[i, j, k] = best[j, 0] * a + best[j, 1] * b + best[j, 2] * c
                t[i, j] -= moves * R[i, j, k] * back[4, k]
