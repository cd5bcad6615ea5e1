"""One heatmap channel, drawn in closed form from landmarks.

No scatter and no loop: the distance of every cell to every landmark or contour piece, and the
least of them. A network that draws it exports like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["CheapHeatmap", "contour_pieces"]


def contour_pieces(contours: Sequence[Sequence[int]], n_points: int) -> list[tuple[int, int]]:
    """Pairs of landmarks that the contours join; landmarks on no contour pair with themselves.

    Raises
    ------
    ValueError
        When a contour names a landmark that there is not.
    """
    for line in contours:
        for index in line:
            if not 0 <= index < n_points:
                raise ValueError(
                    f"contours: got landmark {index}, expected 0 to {n_points - 1} "
                    f"of {n_points} points"
                )
    pieces = [pair for line in contours for pair in pairwise(line)]
    joined = {index for pair in pieces for index in pair}
    return pieces + [(i, i) for i in range(n_points) if i not in joined]


class CheapHeatmap(nn.Module):
    """Nearness of each cell of a grid to the nearest landmark or contour.

    With the distance d to it in cells: ``1 / (1 + d)`` (the form of the Deep Alignment Network,
    Kowalski et al., CVPR workshops 2017, equation 6) or ``exp(-d² / 2)``.

    Parameters
    ----------
    pieces : sequence of (int, int)
        Landmarks at the ends of each piece; a pair of equal ones is a point.
    size : int
        Cells along each side of the grid.
    falloff : {"inverse", "gaussian"}
    """

    grid: Tensor
    first: Tensor
    last: Tensor

    def __init__(self, pieces: Sequence[tuple[int, int]], size: int, falloff: str) -> None:
        super().__init__()
        if falloff not in ("inverse", "gaussian"):
            raise ValueError(f"falloff: got {falloff!r}, expected 'inverse' or 'gaussian'")
        self.size, self.falloff = size, falloff
        centres = (2 * torch.arange(size) + 1) / size - 1
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        first, last = torch.tensor(pieces, dtype=torch.long).T
        # Of the architecture, not learned: none of these belongs into a file of weights.
        self.register_buffer("grid", torch.stack([x, y], -1).reshape(1, -1, 1, 2), persistent=False)
        self.register_buffer("first", first.contiguous(), persistent=False)
        self.register_buffer("last", last.contiguous(), persistent=False)
        self.lines = bool((first != last).any())

    def forward(self, points: Tensor) -> Tensor:
        """``points (n, n_points, 2)``, relative to the crop, to ``(n, 1, size, size)``."""
        start = points[:, self.first][:, None]  # (n, 1, pieces, 2)
        offset = self.grid - start  # (n, cells, pieces, 2)
        if self.lines:
            piece = points[:, self.last][:, None] - start
            length = piece.square().sum(-1).clamp(min=1e-12)  # of a point, 0: any share will do
            share = ((offset * piece).sum(-1) / length).clamp(0, 1)
            offset = offset - share[..., None] * piece
        squared = offset.square().sum(-1).amin(2) * (self.size / 2) ** 2  # in cells
        heat = torch.exp(-squared / 2) if self.falloff == "gaussian" else 1 / (1 + squared.sqrt())
        return heat.reshape(-1, 1, self.size, self.size)
