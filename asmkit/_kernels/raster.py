"""Kernels that draw a triangle mesh: its texture, normals, z-buffer, and shading into pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["add_noise", "blend_layers", "rasterize", "shade", "vertex_normals"]

_Float32s = npt.NDArray[np.float32]
_Int32s = npt.NDArray[np.int32]
_Array = npt.NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def vertex_normals(vertices: _Array, triangles: _Int32s, normals: _Float32s) -> None:
    """Outward unit normals ``(v, 3)``: the mean of the adjoining triangles', weighted by area."""
    normals[:] = 0.0
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux = vertices[b, 0] - vertices[a, 0]
        uy = vertices[b, 1] - vertices[a, 1]
        uz = vertices[b, 2] - vertices[a, 2]
        vx = vertices[c, 0] - vertices[a, 0]
        vy = vertices[c, 1] - vertices[a, 1]
        vz = vertices[c, 2] - vertices[a, 2]
        # v × u: towards the side from which the corners run clockwise (x right, y down, z away)
        nx = vy * uz - vz * uy
        ny = vz * ux - vx * uz
        nz = vx * uy - vy * ux
        for corner in (a, b, c):
            normals[corner, 0] += nx
            normals[corner, 1] += ny
            normals[corner, 2] += nz
    for i in range(normals.shape[0]):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2)
        if length > 0.0:
            for d in range(3):
                normals[i, d] /= length


@njit(cache=True, nogil=True, error_model="numpy")
def rasterize(
    vertices: _Array, triangles: _Int32s, attributes: _Float32s, depth: _Float32s, out: _Float32s
) -> None:
    """Keep, for every pixel centre, the attributes of the nearest triangle that covers it.

    ``vertices (v, 3)`` are x, y in pixels and z away from the camera. A triangle is seen from the
    side on which its corners run clockwise on the screen (y down). ``depth (h, w)`` is filled
    with the smallest z so far (start: infinity), ``out (h, w, k)`` with the attributes there.
    """
    height, width = depth.shape
    n_attributes = attributes.shape[1]
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        bx, by, bz = vertices[b, 0], vertices[b, 1], vertices[b, 2]
        cx, cy, cz = vertices[c, 0], vertices[c, 1], vertices[c, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if not area > 0.0:
            continue
        left = max(0, int(np.ceil(min(ax, bx, cx))))
        right = min(width - 1, int(np.floor(max(ax, bx, cx))))
        top = max(0, int(np.ceil(min(ay, by, cy))))
        bottom = min(height - 1, int(np.floor(max(ay, by, cy))))
        a_x, a_y = (by - cy) / area, (cx - bx) / area
        b_x, b_y = (cy - ay) / area, (ax - cx) / area
        for y in range(top, bottom + 1):
            a_row = (y - cy) * a_y - cx * a_x
            b_row = (y - cy) * b_y - cx * b_x
            for x in range(left, right + 1):
                wa = a_row + x * a_x
                wb = b_row + x * b_x
                wc = 1.0 - wa - wb
                # a hair's breadth of overlap: no sample between two triangles is lost to rounding
                if wa < -1e-9 or wb < -1e-9 or wc < -1e-9:
                    continue
                z = wa * az + wb * bz + wc * cz
                if z < depth[y, x]:
                    depth[y, x] = z
                    for k in range(n_attributes):
                        out[y, x, k] = (
                            wa * attributes[a, k] + wb * attributes[b, k] + wc * attributes[c, k]
                        )


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "arcp", "nsz"})
def shade(
    attributes: _Float32s,
    depth: _Float32s,
    texture: _Float32s,
    lights: _Float32s,
    image: _Float32s,
) -> None:
    """Light the samples of a z-buffer and average them over the pixels of ``image (h, w, 3)``.

    ``attributes (h·s, w·s, 6)`` are texture column and row, unit normal, ambient occlusion;
    ``texture (rows, columns, 4)`` is colour and gloss; ``lights (1 + m, 6)`` holds direction to
    the light and colour, the first row being ambient light. Uncovered samples keep what
    ``image`` held before: its background.
    """
    height, width, _ = image.shape
    step = depth.shape[0] // height
    share = np.float32(1.0 / (step * step))
    colour = np.empty(3, np.float32)
    texel = np.empty(4, np.float32)
    for y in range(height):
        for x in range(width):
            covered = np.float32(0.0)
            for d in range(3):
                colour[d] = 0.0
            for j in range(y * step, (y + 1) * step):
                for i in range(x * step, (x + 1) * step):
                    if not depth[j, i] < np.inf:
                        continue
                    covered += share
                    sample = attributes[j, i]
                    column = min(max(sample[0], np.float32(0.0)), texture.shape[1] - 1.001)
                    row = min(max(sample[1], np.float32(0.0)), texture.shape[0] - 1.001)
                    c, r = int(column), int(row)
                    fc, fr = np.float32(column - c), np.float32(row - r)
                    one = np.float32(1.0)
                    for d in range(4):
                        upper = texture[r, c, d] * (one - fc) + texture[r, c + 1, d] * fc
                        lower = texture[r + 1, c, d] * (one - fc) + texture[r + 1, c + 1, d] * fc
                        texel[d] = upper * (one - fr) + lower * fr
                    nx, ny, nz = sample[2], sample[3], sample[4]
                    inverse = one / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
                    nx, ny, nz = nx * inverse, ny * inverse, nz * inverse
                    for d in range(3):
                        colour[d] += share * texel[d] * lights[0, 3 + d] * sample[5]
                    for m in range(1, lights.shape[0]):
                        lx, ly, lz = lights[m, 0], lights[m, 1], lights[m, 2]
                        # a wrapped cosine: light bleeds around skin
                        cosine = (nx * lx + ny * ly + nz * lz + np.float32(0.2)) / np.float32(1.2)
                        if cosine <= 0.0:
                            continue
                        cosine *= sample[5]
                        hz = lz - one
                        h = one / np.sqrt(lx * lx + ly * ly + hz * hz + np.float32(1e-12))
                        shine = max((nx * lx + ny * ly + nz * hz) * h, np.float32(0.0))
                        shine *= shine
                        shine *= shine
                        shine *= shine
                        shine *= shine * texel[3] * sample[5]
                        for d in range(3):
                            colour[d] += share * lights[m, 3 + d] * (texel[d] * cosine + shine)
            for d in range(3):
                image[y, x, d] = colour[d] + image[y, x, d] * (np.float32(1.0) - covered)


@njit(cache=True, nogil=True, error_model="numpy")
def blend_layers(
    starts: _Int32s, layer: _Int32s, weight: _Float32s, colours: _Float32s, out: _Float32s
) -> None:
    """Each texel of ``out (t, 4)`` is a weighted sum of colours ``(k, 4)``, never negative.

    The weights are sparse: texel i sums entries ``starts[i]`` to ``starts[i + 1]``.
    """
    zero = np.float32(0.0)
    for i in range(out.shape[0]):
        red, green, blue, gloss = zero, zero, zero, zero
        for j in range(starts[i], starts[i + 1]):
            w, k = weight[j], layer[j]
            red += w * colours[k, 0]
            green += w * colours[k, 1]
            blue += w * colours[k, 2]
            gloss += w * colours[k, 3]
        out[i, 0], out[i, 1] = max(red, zero), max(green, zero)
        out[i, 2], out[i, 3] = max(blue, zero), max(gloss, zero)


@njit(cache=True, nogil=True, error_model="numpy")
def add_noise(grid: _Float32s, image: _Float32s) -> None:
    """Add a coarse grid ``(r, c, k)``, smoothly interpolated, to an image ``(h, w, ≥ k)``."""
    height, width, _ = image.shape
    rows, columns, n_channels = grid.shape
    two, three = np.float32(2.0), np.float32(3.0)
    line = np.empty((columns, n_channels), np.float32)
    for y in range(height):
        v = np.float32(y * (rows - 1) / max(height - 1, 1))
        r = min(int(v), rows - 2)
        fv = v - np.float32(r)
        fv = fv * fv * (three - two * fv)
        for c in range(columns):
            for d in range(n_channels):
                line[c, d] = grid[r, c, d] + fv * (grid[r + 1, c, d] - grid[r, c, d])
        for x in range(width):
            u = np.float32(x * (columns - 1) / max(width - 1, 1))
            c = min(int(u), columns - 2)
            fu = u - np.float32(c)
            fu = fu * fu * (three - two * fu)
            for d in range(n_channels):
                image[y, x, d] += line[c, d] + fu * (line[c + 1, d] - line[c, d])
