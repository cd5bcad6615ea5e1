"""Networks whose landmarks come from pooled features, and the heads that they may have.

``"pooled"``
    One linear layer on features pooled over the whole crop, as in the ASMNet paper.
``"spatial"``
    Pooling forgets where things are. Added to the linear layer, for every landmark, is the centre
    of mass of a softmax map at 1/8 of the crop's side: the ``"integral"`` head of
    :class:`asmkit.nn.ATPN`.
``"shape"``
    The linear layer answers the coefficients of a shape model and a similarity, see
    :class:`asmkit.nn.shape_head.ShapeHead`: landmarks are a plausible shape by construction.
"""

from __future__ import annotations

from functools import partial

import torch

from asmkit.nn.blocks import initialise
from asmkit.nn.heads import (
    Features,
    LandmarkNetwork,
    LinearPoints,
    NetworkOutput,
    linear_head,
    to_angles,
)
from asmkit.nn.integral import IntegralMaps
from asmkit.nn.recipe import POOLED_HEADS
from asmkit.nn.shape_head import ShapeHead

__all__ = ["PooledNetwork"]


class PooledNetwork(LandmarkNetwork):
    """Landmarks and pose from pooled features: the two heads of the ASMNet paper.

    Parameters
    ----------
    n_points : int
        Landmarks to predict.
    sizes : (int, int, int)
        Channels of the middle and of the deep features, and the number of pooled ones.
    head : {"pooled", "spatial", "shape"}
        How landmarks are found, see above.
    modes : int
        Modes of the shape model of ``"shape"``; 0 for the others. The model itself comes by
        :meth:`start_from` or with saved weights.
    dropout : float
        Share of the pooled features dropped in training.

    Raises
    ------
    ValueError
        For an unknown head, or a number of modes that it cannot have.
    """

    def __init__(
        self, n_points: int, sizes: tuple[int, int, int], *, head: str, modes: int, dropout: float
    ) -> None:
        if head not in POOLED_HEADS:
            raise ValueError(f"head: got {head!r}, expected one of {', '.join(POOLED_HEADS)}")
        if head != "shape" and modes:
            raise ValueError(f"modes: got {modes}, expected 0 with head={head!r}")
        make = partial(ShapeHead, modes=modes) if head == "shape" else LinearPoints
        middle, deep, flat = sizes
        super().__init__(n_points, flat, dropout=dropout, head=make)
        self.modes = modes
        self.pose_head = linear_head(flat, 3)
        if head == "spatial":
            self.maps = IntegralMaps(middle, deep, n_points)

    def initialise(self) -> None:
        """Draw the weights of all convolutions, once all are there."""
        initialise(self)
        if self.maps is not None:
            self.maps.start()

    def heads(self, features: Features) -> NetworkOutput:
        """Features to landmarks and angles, in float32 also under autocast."""
        with torch.autocast(features.flat.device.type, enabled=False):
            flat = self.dropout(features.flat.float())
            points = self.landmarks(features._replace(flat=flat))
            return NetworkOutput(points, to_angles(self.pose_head(flat)))
