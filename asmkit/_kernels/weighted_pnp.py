"""Pose of one rigid model from points that do not all count alike: the loops.

Weighted least squares is one fit; the robust estimate is many of them, on the points that agree
best, followed by the descent of a bounded loss. A missing point is one of weight 0, whose place in
every array holds zeros.

The inner functions are inlined for the reason that :mod:`asmkit._kernels.pnp` gives.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from asmkit._kernels.pnp import (
    Array,
    _copy,
    _descend,
    _factor,
    _in_front,
    _inner,
    _options,
    _start,
    _turn,
)

__all__ = ["HUBER", "SQUARES", "TUKEY", "solve_robust", "solve_weighted"]

#: How a squared residual counts.
SQUARES, HUBER, TUKEY = 0, 1, 2

# Candidates that are refined, and fits to the better half of the points that each of them gets.
_KEPT, _FITS = 4, 2
# Descents of the robust loss, each with the noise that the one before left.
_ROUNDS = 3


@_inner
def _gather(
    points: Array,
    weights: Array,
    i: int,
    camera: Array,
    reference: Array,
    origin: Array,
    image: Array,
    own: Array,
    q: Array,
) -> int:
    """Images (for focal length 1), model and weights (at most 1) of one shape; its visible points.

    Under perspective the images are relative to the principal point, under orthography to a point
    of the shape: then it does not matter how far from zero the shape lies.
    """
    n_points = points.shape[1]
    n_visible, largest = 0, 0.0
    origin[0], origin[1] = camera[2], camera[3]
    for j in range(n_points):
        x, y, weight = points[i, j, 0], points[i, j, 1], weights[i, j]
        if not weight > 0.0 or math.isnan(x) or math.isnan(y):
            continue
        if n_visible == 0 and camera[5] == 0.0:
            origin[0], origin[1] = x, y
        n_visible += 1
        largest = max(largest, weight)
    for j in range(q.shape[0]):
        q[j] = image[0, j] = image[1, j] = own[0, j] = own[1, j] = own[2, j] = 0.0
        if j >= n_points:
            continue
        x, y, weight = points[i, j, 0], points[i, j, 1], weights[i, j]
        if not weight > 0.0 or math.isnan(x) or math.isnan(y):
            continue
        q[j] = weight / largest
        image[0, j], image[1, j] = (x - origin[0]) / camera[0], (y - origin[1]) / camera[1]
        own[0, j], own[1, j], own[2, j] = reference[0, j], reference[1, j], reference[2, j]
    return n_visible


@_inner
def _principal(
    own: Array,
    q: Array,
    w: Array,
    S: Array,
    axes: Array,
    centre: Array,
    moments: Array,
    model: Array,
) -> float:
    """Model in the principal frame of its weights; its radius, 0 where the points are on a line.

    ``axes`` receives the frame as rows, by falling second moment: Jacobi's method on the scatter.
    """
    total = 0.0
    for k in range(3):
        centre[k] = 0.0
        for i in range(3):
            S[k, i] = 0.0
            axes[k, i] = 1.0 if i == k else 0.0
    for j in range(w.shape[0]):
        total += w[j]
        for k in range(3):
            centre[k] += w[j] * own[k, j]
    for k in range(3):
        centre[k] /= total
    for j in range(w.shape[0]):
        a, b, c = own[0, j] - centre[0], own[1, j] - centre[1], own[2, j] - centre[2]
        S[0, 0] += w[j] * a * a
        S[0, 1] += w[j] * a * b
        S[0, 2] += w[j] * a * c
        S[1, 1] += w[j] * b * b
        S[1, 2] += w[j] * b * c
        S[2, 2] += w[j] * c * c
    S[1, 0], S[2, 0], S[2, 1] = S[0, 1], S[0, 2], S[1, 2]
    for _ in range(10):
        for i in range(2):
            for k in range(i + 1, 3):
                if S[i, k] == 0.0:
                    continue
                ratio = 0.5 * (S[k, k] - S[i, i]) / S[i, k]
                t = 1.0 / (abs(ratio) + math.sqrt(ratio * ratio + 1.0))
                if ratio < 0.0:
                    t = -t
                c = 1.0 / math.sqrt(t * t + 1.0)
                s = t * c
                for r in range(3):
                    x, y = S[i, r], S[k, r]
                    S[i, r], S[k, r] = c * x - s * y, s * x + c * y
                    x, y = axes[i, r], axes[k, r]
                    axes[i, r], axes[k, r] = c * x - s * y, s * x + c * y
                for r in range(3):
                    x, y = S[r, i], S[r, k]
                    S[r, i], S[r, k] = c * x - s * y, s * x + c * y
    for i, k in ((0, 1), (1, 2), (0, 1)):
        if S[i, i] < S[k, k]:
            S[i, i], S[k, k] = S[k, k], S[i, i]
            for r in range(3):
                axes[i, r], axes[k, r] = axes[k, r], axes[i, r]
    axes[2, 0] = axes[0, 1] * axes[1, 2] - axes[0, 2] * axes[1, 1]
    axes[2, 1] = axes[0, 2] * axes[1, 0] - axes[0, 0] * axes[1, 2]
    axes[2, 2] = axes[0, 0] * axes[1, 1] - axes[0, 1] * axes[1, 0]
    radius = u = v = x = 0.0
    for j in range(w.shape[0]):
        a, b, c = own[0, j] - centre[0], own[1, j] - centre[1], own[2, j] - centre[2]
        inside = 1.0 if q[j] > 0.0 else 0.0
        for k in range(3):
            model[k, j] = inside * (axes[k, 0] * a + axes[k, 1] * b + axes[k, 2] * c)
        u += w[j] * model[0, j] * model[0, j]
        v += w[j] * model[1, j] * model[1, j]
        x += w[j] * model[2, j] * model[2, j]
        radius = max(radius, inside * (a * a + b * b + c * c))
    moments[0], moments[1], moments[2] = u / total, v / total, x / total
    return math.sqrt(radius) if moments[1] > 1e-12 * (u + v + x) / total else 0.0


@_inner
def _loss_gradient(
    model: Array,
    q: Array,
    w: Array,
    image: Array,
    camera: Array,
    pose: Array,
    kind: int,
    cut: float,
    g: Array,
) -> float:
    """Gradient of the halved objective ``sum q loss(e²)`` at ``pose``; the objective.

    ``w`` receives the weight of each point that makes the weighted squares touch the loss here:
    ``q loss'(e²)``. The unknowns are those of ``_gradient`` in :mod:`asmkit._kernels.pnp`.
    """
    ratio, perspective = camera[4], camera[5]
    r00, r01, r02 = pose[0, 0], pose[0, 1], pose[0, 2]
    r10, r11, r12 = pose[1, 0], pose[1, 1], pose[1, 2]
    r20, r21, r22 = pose[2, 0], pose[2, 1], pose[2, 2]
    tx, ty, tz = pose[3, 0], pose[3, 1], pose[3, 2]
    g0 = g1 = g2 = g3 = g4 = g5 = objective = 0.0
    for j in range(model.shape[1]):
        X, Y, Z = model[0, j], model[1, j], model[2, j]
        a = r00 * X + r01 * Y + r02 * Z
        b = r10 * X + r11 * Y + r12 * Z
        c = r20 * X + r21 * Y + r22 * Z
        k = 1.0 / (perspective * c + tz)
        x, y = k * (a + tx), k * (b + ty)
        ex, ey = x - image[0, j], y - image[1, j]
        e = ex * ex + ratio * ey * ey
        loss, share = e, 1.0
        if kind == TUKEY:
            u = min(e / cut, 1.0)
            share = (1.0 - u) * (1.0 - u)
            loss = u * cut * (1.0 - u + u * u / 3.0)
        elif kind == HUBER and e > cut:
            share = math.sqrt(cut / e)
            loss = (2.0 - share) * share * e
        w[j] = q[j] * share
        objective += q[j] * loss
        k *= w[j]
        fx, fy = k * ex, k * ratio * ey
        fz = -x * fx - y * fy
        g3 += fx
        g4 += fy
        g5 += fz
        fz *= perspective
        g0 += b * fz - c * fy
        g1 += c * fx - a * fz
        g2 += a * fy - b * fx
    g[0], g[1], g[2], g[3], g[4], g[5] = g0, g1, g2, g3, g4, g5
    return float(objective)


@_inner
def _weighted_matrix(model: Array, w: Array, camera: Array, pose: Array, H: Array) -> None:
    """Upper triangle of J'WJ for the unknowns of :func:`_loss_gradient`."""
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
        k = 1.0 / (perspective * c + tz)
        x, y = k * (a + tx), k * (b + ty)
        a, b, c = k * a, k * b, k * c
        kx, ky = k * x, k * y
        # The Jacobian's rows: (-x b, p, -b, k, 0, -k x) and (-q, y a, a, 0, k, -k y), here
        # with p = c + x a and q = c + y b, then times the weight.
        x, y = perspective * x, perspective * y
        p, xb, q, ya = c + x * a, x * b, c + y * b, y * a
        m = w[j]
        n = ratio * m
        h00 += m * xb * xb + n * q * q
        h01 -= m * xb * p + n * q * ya
        h02 += m * xb * b - n * a * q
        h03 -= m * xb * k
        h04 -= n * q * k
        h05 += m * xb * kx + n * q * ky
        h11 += m * p * p + n * ya * ya
        h12 += n * ya * a - m * b * p
        h13 += m * p * k
        h14 += n * ya * k
        h15 -= m * p * kx + n * ya * ky
        h22 += m * b * b + n * a * a
        h23 -= m * b * k
        h24 += n * a * k
        h33 += m * k * k
        h35 -= m * k * kx
        h45 -= n * k * ky
        h55 += m * kx * kx + n * ky * ky
    H[0, 0], H[0, 1], H[0, 2], H[0, 3], H[0, 4], H[0, 5] = h00, h01, h02, h03, h04, h05
    H[1, 1], H[1, 2], H[1, 3], H[1, 4], H[1, 5] = h11, h12, h13, h14, h15
    H[2, 2], H[2, 3], H[2, 4], H[2, 5] = h22, h23, h24, -h03 - h14
    H[3, 3], H[3, 4], H[3, 5] = h33, 0.0, h35
    H[4, 4], H[4, 5], H[5, 5] = ratio * h33, h45, h55


@_inner
def _minimise(
    model: Array,
    q: Array,
    w: Array,
    w_trial: Array,
    image: Array,
    camera: Array,
    reach: float,
    floor: float,
    kind: int,
    cut: float,
    pose: Array,
    trial: Array,
    blocks: tuple[Array, Array, Array, Array],
    vectors: tuple[Array, Array, Array],
) -> float:
    """Levenberg-Marquardt on the loss, from ``pose``; the objective, which rises in no step.

    The matrix is that of the weighted squares that lie above the loss and touch it at the pose.
    """
    H, S, T, K = blocks
    g, g_trial, step = vectors
    objective = _loss_gradient(model, q, w, image, camera, pose, kind, cut, g)
    damping, definite, renew = 0.0, True, True
    for _ in range(200):
        if renew:
            _weighted_matrix(model, w, camera, pose, H)
            definite = _factor(H, damping, S, T, K)
        decrease = _descend(g, S, T, K, step)
        _turn(pose, step, trial)
        for j in range(3):
            trial[3, j] = pose[3, j] + step[3 + j]
        new = math.inf
        if definite and _in_front(model, trial, reach):
            new = _loss_gradient(model, q, w_trial, image, camera, trial, kind, cut, g_trial)
        last = definite and damping == 0.0 and decrease <= 1e-12 * objective + floor
        if new <= objective or (last and new < math.inf):
            objective = new
            _copy(trial, pose)
            renew = kind != SQUARES or damping > 0.0 or decrease > 0.05 * objective
            damping = 0.1 * damping if damping > 1e-5 else 0.0
            for j in range(w.shape[0]):
                w[j] = w_trial[j]
            for k in range(6):
                g[k] = g_trial[k]
        else:
            renew = True
            damping = 10.0 * damping + 1e-3
        if last or damping > 1e9:
            break
    return float(objective)


@_inner
def _fit(
    own: Array,
    q: Array,
    w: Array,
    image: Array,
    camera: Array,
    model: Array,
    work: tuple[Array, Array],
    poses: tuple[Array, Array, Array],
    frame: tuple[Array, Array, Array],
    ends: tuple[Array, Array, Array],
    blocks: tuple[Array, Array, Array, Array],
    vectors: tuple[Array, Array, Array],
    kind: int,
    cut: float,
) -> float:
    """Pose of least loss, into the last of ``poses``; the loss, or infinity where there is none.

    Squares are minimised from scratch, a loss of another kind from the pose that is there.
    ``w`` (n,) are the weights of the points, ``work[0]`` receives those that the loss makes of
    them. All is compiled at one place: a descent is much code.
    """
    pose, trial, best = poses
    axes, A, local = frame
    centre, moments, centroid = ends
    total = variance = lowest = reach = 0.0
    for j in range(w.shape[0]):
        total += w[j]
    if kind == SQUARES:
        radius = _principal(own, q, w, blocks[0], axes, centre, moments, model)
        first = 0
        while first < w.shape[0] - 1 and not w[first] > 0.0:
            first += 1
        for d in range(2):
            # Offsets from one of the points: a shape of equal points then gives exact zeros.
            mean = squares = a = b = c = 0.0
            for j in range(w.shape[0]):
                u = image[d, j] - image[d, first]
                mean += w[j] * u
                squares += w[j] * u * u
                a += w[j] * u * model[0, j]
                b += w[j] * u * model[1, j]
                c += w[j] * u * model[2, j]
            mean /= total
            centroid[d] = image[d, first] + mean
            variance += squares / total - mean * mean
            A[d, 0] = a / (total * moments[0])
            A[d, 1] = b / (total * moments[1])
            A[d, 2] = c / (total * moments[2]) if moments[2] > 0.0 else 0.0
        if not (radius > 0.0 and 0.0 < variance < math.inf):
            return math.inf
        reach, floor = camera[5] * radius, 1e-20 * total * variance
    else:
        for k in range(3):
            centre[k] = 0.0
            for d in range(3):
                axes[k, d] = 1.0 if k == d else 0.0
        for j in range(w.shape[0]):
            x, y, z = own[0, j], own[1, j], own[2, j]
            model[0, j], model[1, j], model[2, j] = x, y, z
            reach = max(reach, x * x + y * y + z * z)
        _copy(best, pose)
        reach, floor = camera[5] * math.sqrt(reach), 1e-20 * cut
    lowest = math.inf
    for side in (1.0, -1.0):
        apart = math.inf
        if kind == SQUARES:
            apart = _start(A, centroid, camera[5], reach, side, pose, local)
            if camera[5] == 0.0:
                pose[3, 0], pose[3, 1] = centroid[0] * pose[3, 2], centroid[1] * pose[3, 2]
        objective = _minimise(
            *(model, w, work[0], work[1], image, camera, reach, floor, kind, cut),
            *(pose, trial, blocks, vectors),
        )
        if objective < lowest:
            lowest = objective
            _copy(pose, best)
        # The pose mirrored in depth cannot win where the noise is far below the gap of the two.
        if kind != SQUARES or lowest < 0.1 * total * moments[2] * apart:
            break
    # From the principal frame of the weights back to the model's own.
    for j in range(3):
        x, y, z = best[j, 0], best[j, 1], best[j, 2]
        shift = 0.0
        for k in range(3):
            best[j, k] = x * axes[0, k] + y * axes[1, k] + z * axes[2, k]
            shift += best[j, k] * centre[k]
        best[3, j] -= shift if j < 2 or camera[5] == 1.0 else 0.0
    return lowest


@_inner
def _write(
    i: int,
    pose: Array,
    rms: float,
    camera: Array,
    origin: Array,
    back: Array,
    R: Array,
    t: Array,
    errors: Array,
) -> None:
    """Results of shape i, for the reference as its owner knows it."""
    errors[i] = camera[0] * rms
    for j in range(3):
        shift = 0.0
        for k in range(3):
            a, b, c = back[k, 0], back[k, 1], back[k, 2]
            R[i, j, k] = pose[j, 0] * a + pose[j, 1] * b + pose[j, 2] * c
            shift += R[i, j, k] * back[4, k]
        t[i, j] = back[3, j] * pose[3, j]
        if j == 2:
            # Under orthography t_z is the scale, wherever the model's origin lies.
            t[i, j] -= camera[5] * shift
        else:
            far = (1.0 - camera[5]) * origin[j] * pose[3, 2]
            t[i, j] += back[3, j] * far - shift


@numba.njit(cache=True, **_options)
def solve_weighted(
    points: Array,
    weights: Array,
    camera: Array,
    reference: Array,
    back: Array,
    start: int,
    stop: int,
    R: Array,
    t: Array,
    errors: Array,
) -> None:
    """Poses of least weighted squares of ``points[start:stop]``; NaN where there is none.

    ``camera``, ``reference`` (the padded model) and ``back`` are those of
    :func:`asmkit._kernels.pnp.solve`. Points of weight 0 and points with a NaN do not count.
    """
    width = reference.shape[1]
    image, own, model = np.empty((2, width)), np.empty((3, width)), np.empty((3, width))
    q, work = np.empty(width), (np.empty(width), np.empty(width))
    poses = (np.empty((4, 3)), np.empty((4, 3)), np.empty((4, 3)))
    frame = (np.empty((3, 3)), np.empty((2, 3)), np.empty((2, 3)))
    ends = (np.empty(3), np.empty(3), np.empty(2))
    blocks = (np.empty((6, 6)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)))
    vectors, origin = (np.empty(6), np.empty(6), np.empty(6)), np.empty(2)
    for i in range(start, stop):
        poses[2][:] = math.nan
        n_visible = _gather(points, weights, i, camera, reference, origin, image, own, q)
        squares = math.inf
        if n_visible >= 4:
            squares = _fit(
                *(own, q, q, image, camera, model, work, poses, frame, ends, blocks, vectors),
                *(SQUARES, 1.0),
            )
        total = 0.0
        for j in range(width):
            total += q[j]
        rms = math.sqrt(squares / total) if squares < math.inf else math.nan
        _write(i, poses[2], rms, camera, origin, back, R, t, errors)


@_inner
def _minimal_image(
    model: Array,
    image: Array,
    q: Array,
    draw: Array,
    n_visible: int,
    flat: bool,
    least: float,
    chosen: tuple[Array, Array],
    M: Array,
) -> bool:
    """Scaled-orthographic image ``M`` (2, 4) of the model from the fewest points; False: too few.

    Four of the visible points give the affine image, whose nearest orthographic one is taken. A
    flat model needs three: any affine image of a plane is an orthographic one. ``draw`` holds four
    numbers in [0, 1) that choose the points.
    """
    D, U = chosen
    n_chosen = 3 if flat else 4
    # The rank among those not yet taken, which lie below in rising order.
    taken0 = taken1 = taken2 = -1
    for k in range(n_chosen):
        rank = int(draw[k] * (n_visible - k))
        if k > 0 and rank >= taken0:
            rank += 1
        if k > 1 and rank >= taken1:
            rank += 1
        if k > 2 and rank >= taken2:
            rank += 1
        j = seen = 0
        while True:
            if q[j] > 0.0:
                if seen == rank:
                    break
                seen += 1
            j += 1
        for d in range(3):
            D[k, d] = model[d, j]
        U[k, 0], U[k, 1] = image[0, j], image[1, j]
        if k == 0:
            taken0 = rank
        elif k == 1:
            taken0, taken1 = min(taken0, rank), max(taken0, rank)
        else:
            low, high = min(taken0, rank), max(taken1, rank)
            taken0, taken1, taken2 = low, taken0 + taken1 + rank - low - high, high
    for k in range(1, n_chosen):
        for d in range(3):
            D[k, d] -= D[0, d]
        for d in range(2):
            U[k, d] -= U[0, d]
    if flat:
        det = D[1, 0] * D[2, 1] - D[1, 1] * D[2, 0]
        if abs(det) < least:
            return False
        for d in range(2):
            M[d, 0] = (U[1, d] * D[2, 1] - U[2, d] * D[1, 1]) / det
            M[d, 1] = (U[2, d] * D[1, 0] - U[1, d] * D[2, 0]) / det
            M[d, 2] = 0.0
            M[d, 3] = U[0, d] - M[d, 0] * D[0, 0] - M[d, 1] * D[0, 1]
        return True
    for d in range(2):
        for k in range(3):
            M[d, k] = 0.0
    det = 0.0
    for r in range(3):
        m, n = 1 + (r + 1) % 3, 1 + (r + 2) % 3
        for k in range(3):
            x, y = (k + 1) % 3, (k + 2) % 3
            cofactor = D[m, x] * D[n, y] - D[m, y] * D[n, x]
            M[0, k] += U[1 + r, 0] * cofactor
            M[1, k] += U[1 + r, 1] * cofactor
            if r == 0:
                det += D[1, k] * cofactor
    if abs(det) < least:
        return False
    a = (M[0, 0] * M[0, 0] + M[0, 1] * M[0, 1] + M[0, 2] * M[0, 2]) / (det * det)
    b = (M[0, 0] * M[1, 0] + M[0, 1] * M[1, 1] + M[0, 2] * M[1, 2]) / (det * det)
    c = (M[1, 0] * M[1, 0] + M[1, 1] * M[1, 1] + M[1, 2] * M[1, 2]) / (det * det)
    root = math.sqrt(max(a * c - b * b, 0.0))
    if not root > 0.0:
        return False
    # The polar factor times the mean singular value.
    k = 0.5 / (root * det)
    for d in range(3):
        x, y = M[0, d], M[1, d]
        M[0, d], M[1, d] = k * ((c + root) * x - b * y), k * ((a + root) * y - b * x)
    for d in range(2):
        shift = 0.25 * (U[1, d] + U[2, d] + U[3, d])
        for k in range(3):
            mean = D[0, k] + 0.25 * (D[1, k] + D[2, k] + D[3, k])
            shift -= M[d, k] * mean
        M[d, 3] = U[0, d] + shift
    return True


@_inner
def _affine_errors(model: Array, image: Array, ratio: float, M: Array, errors: Array) -> None:
    """Squared distances of the image from the model's affine image."""
    a, b, c, x = M[0, 0], M[0, 1], M[0, 2], M[0, 3]
    d, e, f, y = M[1, 0], M[1, 1], M[1, 2], M[1, 3]
    for j in range(errors.shape[0]):
        X, Y, Z = model[0, j], model[1, j], model[2, j]
        ex = a * X + b * Y + c * Z + x - image[0, j]
        ey = d * X + e * Y + f * Z + y - image[1, j]
        errors[j] = ex * ex + ratio * ey * ey


@_inner
def _pose_errors(own: Array, image: Array, camera: Array, pose: Array, errors: Array) -> None:
    """Squared distances of the image from the model's in a pose."""
    for j in range(errors.shape[0]):
        X, Y, Z = own[0, j], own[1, j], own[2, j]
        a = pose[0, 0] * X + pose[0, 1] * Y + pose[0, 2] * Z + pose[3, 0]
        b = pose[1, 0] * X + pose[1, 1] * Y + pose[1, 2] * Z + pose[3, 1]
        c = pose[2, 0] * X + pose[2, 1] * Y + pose[2, 2] * Z
        k = 1.0 / (camera[5] * c + pose[3, 2])
        ex, ey = k * a - image[0, j], k * b - image[1, j]
        errors[j] = ex * ex + camera[4] * ey * ey


@_inner
def _quantile(errors: Array, q: Array, needed: float, ordered: tuple[Array, Array]) -> float:
    """The least error such that all points up to it together weigh ``needed``."""
    values, weights = ordered
    n = 0
    for j in range(errors.shape[0]):
        if q[j] > 0.0:
            values[n], weights[n] = errors[j], q[j]
            n += 1
    gap = n // 2
    while gap > 0:
        for j in range(gap, n):
            value, weight = values[j], weights[j]
            k = j
            while k >= gap and values[k - gap] > value:
                values[k], weights[k] = values[k - gap], weights[k - gap]
                k -= gap
            values[k], weights[k] = value, weight
        gap = 1 if gap == 2 else (5 * gap) // 11
    reached, k = weights[0], 0
    while reached < needed and k < n - 1:
        k += 1
        reached += weights[k]
    return float(values[k])


@numba.njit(cache=True, **_options)
def solve_robust(
    points: Array,
    weights: Array,
    camera: Array,
    reference: Array,
    back: Array,
    draws: Array,
    kind: int,
    tuning: float,
    noise: float,
    start: int,
    stop: int,
    R: Array,
    t: Array,
    errors: Array,
    shares: Array,
) -> None:
    """Poses of ``points[start:stop]`` that wrong points hardly move; NaN where there is none.

    As :func:`solve_weighted`, and: ``draws`` (s, 4) in [0, 1) chooses the minimal sets, none for a
    start by least squares; the loss ``kind`` leaves the squares at ``tuning`` times the noise;
    ``noise`` is its standard deviation in pixels, 0 where unknown. ``shares`` receives the weights
    that the points have in the end.
    """
    width, n_points = reference.shape[1], points.shape[1]
    image, own, model = np.empty((2, width)), np.empty((3, width)), np.empty((3, width))
    q, w, e = np.empty(width), np.empty(width), np.empty(width)
    work, ordered = (np.empty(width), np.empty(width)), (np.empty(width), np.empty(width))
    poses = (np.empty((4, 3)), np.empty((4, 3)), np.empty((4, 3)))
    frame = (np.empty((3, 3)), np.empty((2, 3)), np.empty((2, 3)))
    ends = (np.empty(3), np.empty(3), np.empty(2))
    blocks = (np.empty((6, 6)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)))
    vectors, origin = (np.empty(6), np.empty(6), np.empty(6)), np.empty(2)
    chosen, M, best = (np.empty((4, 3)), np.empty((4, 2))), np.empty((2, 4)), np.empty((4, 3))
    scores, kept = np.empty(_KEPT), np.empty((_KEPT, width))
    given, sampled = noise / camera[0], len(draws) > 0
    for i in range(start, stop):
        poses[2][:] = math.nan
        n_visible = _gather(points, weights, i, camera, reference, origin, image, own, q)
        total = size = variance = 0.0
        for j in range(width):
            total += q[j]
            w[j] = q[j]
        # A share of the points such that what a pose fits by itself is left out of the count.
        share = min(1.0, (n_visible + 4) / (2.0 * max(n_visible, 1)))
        needed = share * total * (1.0 - 1e-12)
        n_fits, radius = 0, 0.0
        if n_visible >= 4:
            radius = _principal(own, q, w, blocks[0], frame[0], ends[0], ends[1], model)
        if radius > 0.0 and not sampled:
            n_fits = 1
        elif radius > 0.0:
            scores[:] = math.inf
            flat = ends[1][2] < 1e-4 * ends[1][0]
            least = 0.1 * math.sqrt(ends[1][0] * ends[1][1] * (1.0 if flat else ends[1][2]))
            for s in range(len(draws)):
                if not _minimal_image(model, image, q, draws[s], n_visible, flat, least, chosen, M):
                    continue
                _affine_errors(model, image, camera[4], M, e)
                near = 0.0
                for j in range(width):
                    near += q[j] if e[j] < scores[_KEPT - 1] else 0.0
                if near < needed:
                    continue
                k, score = _KEPT - 1, _quantile(e, q, needed, ordered)
                while k > 0 and scores[k - 1] > score:
                    scores[k] = scores[k - 1]
                    kept[k] = kept[k - 1]
                    k -= 1
                scores[k] = score
                kept[k] = e
            for k in range(_KEPT):
                n_fits += _FITS if scores[k] < math.inf else 0
        # First fits of least squares to the better half of the points; then, from the best of
        # them, descents of the loss on all points.
        lowest, cut, rms = math.inf, 0.0, math.nan
        for fit in range(n_fits + _ROUNDS):
            descends = fit >= n_fits
            if fit == n_fits:
                if not lowest < math.inf:
                    break
                _copy(best, poses[2])
                for j in range(width):
                    w[j] = q[j]
                    size = max(size, q[j] * image[0, j] ** 2, q[j] * image[1, j] ** 2)
                # Of squared distances of Gaussian noise in the plane, the share that lies below
                # x times the variance is 1 - exp(-x / 2).
                variance = lowest / (-2.0 * math.log(1.0 - min(share, 0.9)))
                variance *= (1.0 + 5.0 / (n_visible - 3)) ** 2
            elif sampled and not descends:
                if fit % _FITS == 0:
                    cut = scores[fit // _FITS]
                    e[:] = kept[fit // _FITS]
                for j in range(width):
                    w[j] = q[j] if e[j] <= cut else 0.0
            if descends:
                variance = max(given * given if given > 0.0 else variance, 1e-24 * size)
            now = kind if descends else SQUARES
            loss = _fit(
                *(own, q, w, image, camera, model, work, poses, frame, ends, blocks, vectors),
                *(now, tuning * tuning * variance),
            )
            _pose_errors(own, image, camera, poses[2], e)
            inside = squares = 0.0
            n_inside = 0
            if descends:
                for j in range(width):
                    if q[j] > 0.0 and e[j] < 9.0 * variance:
                        inside += q[j]
                        squares += q[j] * e[j]
                        n_inside += 1
                if n_inside > 3:
                    # Below three standard deviations lie 0.949 of the squares of the noise.
                    variance = squares / (inside * (2.0 - 6.0 / n_inside)) / 0.9494
            elif loss < math.inf:
                cut = _quantile(e, q, needed, ordered)
                if cut < lowest:
                    lowest = cut
                    _copy(poses[2], best)
            else:
                e[:] = math.inf
        if lowest < math.inf:
            inside = squares = 0.0
            n_inside = 0
            for j in range(width):
                if work[0][j] > 0.0:
                    n_inside += 1
                    inside += work[0][j]
                    squares += work[0][j] * e[j]
            if n_inside >= 4:
                rms = math.sqrt(squares / inside)
        if not rms >= 0.0:
            poses[2][:] = math.nan
        for j in range(n_points):
            shares[i, j] = weights[i, j] * (work[0][j] / q[j]) if q[j] > 0.0 and rms >= 0.0 else 0.0
        _write(i, poses[2], rms, camera, origin, back, R, t, errors)
