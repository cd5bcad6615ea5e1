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
# Called from kernels alone and compiled into them: no entry from Python, no file of its own.
_inner_options = {**_options, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
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
    """Least-squares affine image of the model: ``image = A model + centroid``; image's variance."""
    n_points = model.shape[1]
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
        for j in range(n_points):
            image[d, j] += offset
        total /= n_points
        centroid[d] = offset + total
        variance += squares / n_points - total * total
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
    p = A[0, 0] * A[0, 0] + A[0, 1] * A[0, 1]
    q = A[1, 0] * A[1, 0] + A[1, 1] * A[1, 1]
    r = A[0, 0] * A[1, 0] + A[0, 1] * A[1, 1]
    d = 0.5 * (p - q)
    h = math.sqrt(d * d + r * r)
    scale = math.sqrt(0.5 * (p + q) + h)
    # What the plane's image lacks along its minor axis (x, y) is depth.
    x, y = d - h, r
    if d > 0.0:
        x, y = -r, d + h
    norm = math.sqrt(x * x + y * y)
    depth = side * math.sqrt(2.0 * h) / (scale * norm) if norm > 0.0 else 0.0
    if x * A[0, 2] + y * A[1, 2] < 0.0:
        depth = -depth
    pose[0, 2], pose[1, 2] = depth * x, depth * y
    for j in range(2):
        pose[0, j], pose[1, j] = A[0, j] / scale, A[1, j] / scale
    pose[2, 0] = pose[0, 1] * pose[1, 2] - pose[0, 2] * pose[1, 1]
    pose[2, 1] = pose[0, 2] * pose[1, 0] - pose[0, 0] * pose[1, 2]
    pose[2, 2] = pose[0, 0] * pose[1, 1] - pose[0, 1] * pose[1, 0]
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
def _weak_objective(A: Array, moments: Array, scale: float, pose: Array) -> float:
    total = 0.0
    for j in range(3):
        for i in range(2):
            e = scale * pose[i, j] - A[i, j]
            total += moments[j] * e * e
    return total


@_inner
def _weak_step(
    A: Array, moments: Array, scale: float, pose: Array, damping: float, S: Array, step: Array
) -> float:
    """Damped Newton step of the weak-perspective objective: turn, then change of log scale.

    Returns the predicted decrease, negative where the damped Hessian is not positive definite.
    """
    zz = xz = yz = spread = xx = xy = gx = gy = gz = gs = 0.0
    for j in range(3):
        m, x, y, z = moments[j], scale * pose[0, j], scale * pose[1, j], scale * pose[2, j]
        u, v = m * (x - A[0, j]), m * (y - A[1, j])
        zz += m * z * z
        xz += m * z * x
        yz += m * z * y
        spread += m * (x * x + y * y)
        xx += u * x
        xy += 0.5 * (u * y + v * x)
        gx -= v * z
        gy += u * z
        gz += v * x - u * y
        gs += u * x + v * y
    added = damping * spread
    hx, hy, hs = gx - yz, gy + xz, gs + spread + added
    k = 1.0 / hs
    S[0, 0] = zz - gs + xx + added - k * hx * hx
    S[0, 1] = xy - k * hx * hy
    S[0, 2] = 0.5 * gy - xz - k * hx * gz
    S[1, 1] = zz - xx + added - k * hy * hy
    S[1, 2] = -0.5 * gx - yz - k * hy * gz
    S[2, 2] = spread - gs + added - k * gz * gz
    definite = _invert(S) and hs > 0.0
    x, y, z = k * hx * gs - gx, k * hy * gs - gy, k * gz * gs - gz
    for j in range(3):
        step[j] = S[j, 0] * x + S[j, 1] * y + S[j, 2] * z
    step[3] = -k * (gs + hx * step[0] + hy * step[1] + gz * step[2])
    decrease = -(gx * step[0] + gy * step[1] + gz * step[2] + gs * step[3])
    return float(decrease if definite else -1.0)


@_inner
def _weak_perspective(
    A: Array,
    moments: Array,
    side: float,
    n_steps: int,
    pose: Array,
    trial: Array,
    S: Array,
    step: Array,
) -> tuple[float, float, float]:
    """Rotation and scale nearest to the affine image A, from one of the two planar starts.

    Minimises ``sum_j moments[j] |scale R[:2, j] - A[:, j]|^2`` by damped Newton steps. Returns
    the scale, the objective and how far the two starts are apart.
    """
    scale, apart = _planar_pose(A, side, pose)
    objective = _weak_objective(A, moments, scale, pose)
    floor = 1e-17 * scale * scale
    damping = 0.0
    for _ in range(n_steps):
        decrease = _weak_step(A, moments, scale, pose, damping, S, step)
        new = math.inf
        if decrease >= 0.0:
            _turn(pose, step, trial)
            new_scale = scale * math.exp(step[3])
            new = _weak_objective(A, moments, new_scale, trial)
        if new <= objective:
            scale, objective = new_scale, new
            _copy(trial, pose)
            damping = 0.1 * damping if damping > 1e-3 else 0.0
        else:
            damping = max(10.0 * damping, 1e-3)
        if 0.0 <= decrease <= floor:
            break
    return scale, objective, apart


@_inner
def _perspective_start(
    A: Array,
    centroid: Array,
    moments: Array,
    radius: float,
    side: float,
    n_steps: int,
    pose: Array,
    trial: Array,
    S: Array,
    local: Array,
    step: Array,
) -> float:
    """Weak-perspective pose along the ray to the centroid; how far the two starts are apart."""
    u, v = centroid[0], centroid[1]
    z = 1.0 / math.sqrt(1.0 + u * u + v * v)
    x, y, k = u * z, v * z, 1.0 / (1.0 + z)
    # The least rotation that takes the ray to the optical axis.
    a, b, c = 1.0 - x * x * k, -x * y * k, 1.0 - y * y * k
    for j in range(3):
        local[0, j] = z * (a * A[0, j] + b * A[1, j])
        local[1, j] = z * (b * A[0, j] + c * A[1, j])
    scale, _, apart = _weak_perspective(local, moments, side, n_steps, pose, trial, S, step)
    for j in range(3):
        u, v, w = pose[0, j], pose[1, j], pose[2, j]
        pose[0, j] = a * u + b * v + x * w
        pose[1, j] = b * u + c * v + y * w
        pose[2, j] = z * w - x * u - y * v
    depth = max(z / scale, 1.1 * radius)
    pose[3, 0], pose[3, 1], pose[3, 2] = centroid[0] * depth, centroid[1] * depth, depth
    return float(apart / (z * z))


@_inner
def _normal_equations(model: Array, image: Array, pose: Array, ratio: float, H: Array) -> float:
    """Gauss-Newton matrix (upper triangle of H[:6]) and gradient (H[6]) at ``pose``; the objective.

    Unknowns: a turn of the model about its centre, then a shift. ``ratio`` is (fy / fx)^2, the
    weight of the second coordinate.
    """
    r00, r01, r02 = pose[0, 0], pose[0, 1], pose[0, 2]
    r10, r11, r12 = pose[1, 0], pose[1, 1], pose[1, 2]
    r20, r21, r22 = pose[2, 0], pose[2, 1], pose[2, 2]
    tx, ty, tz = pose[3, 0], pose[3, 1], pose[3, 2]
    h00 = h01 = h02 = h03 = h04 = h05 = h11 = h12 = h13 = h14 = h15 = h22 = h23 = h24 = 0.0
    h33 = h35 = h45 = h55 = g0 = g1 = g2 = g3 = g4 = g5 = squares = 0.0
    for j in range(model.shape[1]):
        X, Y, Z = model[0, j], model[1, j], model[2, j]
        a = r00 * X + r01 * Y + r02 * Z
        b = r10 * X + r11 * Y + r12 * Z
        c = r20 * X + r21 * Y + r22 * Z
        w = 1.0 / (c + tz)
        x, y = (a + tx) * w, (b + ty) * w
        a, b, c = a * w, b * w, c * w
        ex, ey = x - image[0, j], y - image[1, j]
        # The Jacobian's rows: (-x b, p, -b, w, 0, -x w) and (-q, y a, a, 0, w, -y w).
        p, q = c + x * a, c + y * b
        xb, ya = x * b, y * a
        ra, rq, ry, rya = ratio * a, ratio * q, ratio * y, ratio * ya
        ww = w * w
        h00 += xb * xb + q * rq
        h01 -= xb * p + q * rya
        h02 += xb * b - ra * q
        h03 -= xb * w
        h04 -= rq * w
        h05 += (x * xb + y * rq) * w
        h11 += p * p + ya * rya
        h12 += ya * ra - b * p
        h13 += p * w
        h14 += rya * w
        h15 -= (x * p + y * rya) * w
        h22 += b * b + a * ra
        h23 -= b * w
        h24 += ra * w
        h33 += ww
        h35 -= ww * x
        h45 -= ww * ry
        h55 += ww * (x * x + y * ry)
        g0 -= xb * ex + rq * ey
        g1 += p * ex + rya * ey
        g2 += ra * ey - b * ex
        g3 += w * ex
        g4 += w * ey
        g5 -= w * (x * ex + ry * ey)
        squares += ex * ex + ratio * ey * ey
    H[0, 0], H[0, 1], H[0, 2], H[0, 3], H[0, 4], H[0, 5] = h00, h01, h02, h03, h04, h05
    H[1, 1], H[1, 2], H[1, 3], H[1, 4], H[1, 5] = h11, h12, h13, h14, h15
    H[2, 2], H[2, 3], H[2, 4], H[2, 5] = h22, h23, h24, -h03 - h14
    H[3, 3], H[3, 4], H[3, 5] = h33, 0.0, h35
    H[4, 4], H[4, 5], H[5, 5] = ratio * h33, h45, h55
    H[6, 0], H[6, 1], H[6, 2], H[6, 3], H[6, 4], H[6, 5] = g0, g1, g2, g3, ratio * g4, g5
    return squares


@_inner
def _gauss_newton_step(
    H: Array, damping: float, S: Array, T: Array, K: Array, step: Array
) -> float:
    """Solve the damped equations by blocks; the predicted decrease, negative if indefinite."""
    for i in range(3):
        for j in range(i, 3):
            T[i, j] = H[3 + i, 3 + j]
        T[i, i] *= 1.0 + damping
    definite = _invert(T)
    for i in range(3):
        for j in range(3):
            K[i, j] = H[i, 3] * T[0, j] + H[i, 4] * T[1, j] + H[i, 5] * T[2, j]
        step[3 + i] = K[i, 0] * H[6, 3] + K[i, 1] * H[6, 4] + K[i, 2] * H[6, 5] - H[6, i]
    for i in range(3):
        for j in range(i, 3):
            S[i, j] = H[i, j] - (K[i, 0] * H[j, 3] + K[i, 1] * H[j, 4] + K[i, 2] * H[j, 5])
        S[i, i] += damping * H[i, i]
    definite = _invert(S) and definite
    for i in range(3):
        step[i] = S[i, 0] * step[3] + S[i, 1] * step[4] + S[i, 2] * step[5]
    decrease = 0.0
    for i in range(3):
        own = T[i, 0] * H[6, 3] + T[i, 1] * H[6, 4] + T[i, 2] * H[6, 5]
        step[3 + i] = -own - K[0, i] * step[0] - K[1, i] * step[1] - K[2, i] * step[2]
        decrease -= H[6, i] * step[i] + H[6, 3 + i] * step[3 + i]
    return float(decrease if definite else -1.0)


@_inner
def _in_front(model: Array, pose: Array, radius: float) -> bool:
    """Whether every point has positive depth."""
    tz = pose[3, 2]
    if tz > 1.001 * radius:
        return True
    nearest = radius
    for j in range(model.shape[1]):
        z = pose[2, 0] * model[0, j] + pose[2, 1] * model[1, j] + pose[2, 2] * model[2, j]
        nearest = min(nearest, z)
    return bool(nearest + tz > 1e-3 * radius)


@_inner
def _refine(
    model: Array,
    image: Array,
    ratio: float,
    radius: float,
    floor: float,
    pose: Array,
    trial: Array,
    H: Array,
    H_trial: Array,
    S: Array,
    T: Array,
    K: Array,
    step: Array,
) -> float:
    """Levenberg-Marquardt to convergence; returns the objective, which never rises."""
    objective = _normal_equations(model, image, pose, ratio, H)
    damping = 0.0
    for _ in range(100):
        decrease = _gauss_newton_step(H, damping, S, T, K, step)
        _turn(pose, step, trial)
        for j in range(3):
            trial[3, j] = pose[3, j] + step[3 + j]
        # So near, the quadratic model is exact: the last step needs no second look.
        if damping == 0.0 and 0.0 <= decrease <= max(1e-9 * objective, floor):
            _copy(trial, pose)
            return float(max(objective - decrease, 0.0))
        new = math.inf
        if decrease >= 0.0 and _in_front(model, trial, radius):
            new = _normal_equations(model, image, trial, ratio, H_trial)
        if new <= objective:
            objective = new
            _copy(trial, pose)
            H, H_trial = H_trial, H
            damping = 0.1 * damping if damping > 1e-5 else 0.0
        else:
            damping = max(10.0 * damping, 1e-3)
            if damping > 1e9:
                break
    return float(objective)


@_inner
def _reprojection(
    model: Array, image: Array, ratio: float, is_perspective: bool, pose: Array
) -> float:
    """Sum of squared distances between the image and the projected model."""
    total = 0.0
    perspective = 1.0 if is_perspective else 0.0
    for j in range(model.shape[1]):
        X, Y, Z = model[0, j], model[1, j], model[2, j]
        w = 1.0 / (perspective * (pose[2, 0] * X + pose[2, 1] * Y + pose[2, 2] * Z) + pose[3, 2])
        x = w * (pose[0, 0] * X + pose[0, 1] * Y + pose[0, 2] * Z + pose[3, 0]) - image[0, j]
        y = w * (pose[1, 0] * X + pose[1, 1] * Y + pose[1, 2] * Z + pose[3, 1]) - image[1, j]
        total += x * x + ratio * y * y
    return total


@numba.njit(cache=True, **_options)
def solve(
    points: Array,
    camera: Array,
    is_perspective: bool,
    model: Array,
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

    ``camera`` holds fx, fy, cx, cy; ``back`` (5, 3) leads from the principal frame to the model's
    own: its axes as columns, its unit of length (three times), its centre.
    """
    n_points = model.shape[1]
    image, A, centroid = np.empty((2, n_points)), np.empty((2, 3)), np.empty(2)
    pose, best = np.empty((4, 3)), np.empty((4, 3))
    trial, local, step = np.empty((4, 3)), np.empty((2, 3)), np.empty(6)
    S, T, K = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    H, H_trial = np.empty((7, 6)), np.empty((7, 6))
    ratio = (camera[1] / camera[0]) ** 2
    n_steps = 1 if is_perspective else 50
    for i in range(start, stop):
        variance = _affine_fit(points, i, camera, model, moments, image, A, centroid)
        lowest = math.inf
        best[:] = math.nan
        for side in (1.0, -1.0):
            if not 0.0 < variance < math.inf:
                break
            if is_perspective:
                apart = _perspective_start(
                    A, centroid, moments, radius, side, n_steps, pose, trial, S, local, step
                )
                floor = 1e-20 * n_points * variance
                objective = _refine(
                    model, image, ratio, radius, floor, pose, trial, H, H_trial, S, T, K, step
                )
            else:
                scale, objective, apart = _weak_perspective(
                    A, moments, side, n_steps, pose, trial, S, step
                )
                pose[3, 0], pose[3, 1] = centroid[0] / scale, centroid[1] / scale
                pose[3, 2] = 1.0 / scale
            if objective < lowest:
                lowest = objective
                _copy(pose, best)
            # The pose mirrored in depth costs about 4 n_points moments[2] apart: it cannot win
            # where the noise is far below.
            if is_perspective and lowest < 0.1 * n_points * moments[2] * apart:
                break
        total = _reprojection(model, image, ratio, is_perspective, best)
        rms[i] = camera[0] * math.sqrt(total / n_points)
        for j in range(3):
            t[i, j] = back[3, j] * best[3, j]
            for k in range(3):
                a, b, c = back[k, 0], back[k, 1], back[k, 2]
                R[i, j, k] = best[j, 0] * a + best[j, 1] * b + best[j, 2] * c
                t[i, j] -= R[i, j, k] * back[4, k]
