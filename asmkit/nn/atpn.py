"""ATPN: alignment, tracking and head pose from one small network.

Source: Xia et al., "An Efficient Multitask Neural Network for Face Alignment, Head Pose Estimation
and Face Tracking", arXiv 2103.07615.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from asmkit.nn.blocks import InvertedResidual, conv_bn, initialise, scaled
from asmkit.nn.cheap_heatmap import CheapHeatmap, contour_pieces
from asmkit.nn.confidence import confidence_head
from asmkit.nn.heads import Features, LandmarkNetwork, NetworkOutput, linear_head, to_angles
from asmkit.nn.integral import IntegralMaps
from asmkit.nn.recipe import ATPN_CHOICES
from asmkit.nn.rotation import angles_of, rotation_from_6d
from asmkit.nn.visibility import visibility_head

__all__ = ["ATPN"]

#: By how much the features that pose and face look at are smaller than the crop, and the deep ones.
_MIDDLE, _DEEP = 8, 16

#: Channels of what pose and face see where it is, and of the coordinates, at any width.
_TASK_SQUEEZED, _TASK_SPATIAL = 16, 64


class ATPN(LandmarkNetwork):
    """Alignment, tracking and head pose: a reconstruction of the published network.

    **Published** (abstract and results of arXiv 2103.07615): a light trunk; a shortcut connection
    from shallow to deep features, because shallow features follow the boundaries of the face; a
    cheap heatmap made from the alignment's result and fused with features for two more tasks, head
    pose and face tracking (face or not, which replaces the detector on most frames of a video).

    **Reconstructed**, because nothing more was published (no table of blocks, input size, layer of
    the shortcut, formula of the heatmap, fusion, losses or schedule): everything else, and each
    choice below is an argument. The trunk is MobileNetV2's inverted residual at 1/2 (24 channels),
    1/4 (32: the shallow tap), 1/8 (64) and 1/16 (128) of the crop's side. The alignment head sees
    the deep features twice: pooled, and through one convolution as large as the map, which keeps
    where things are.

    Training (:func:`asmkit.nn.train`) has two stages: the landmarks, then pose and face with the
    landmarks frozen, so that they lose nothing.

    At 68 points, 112×112 and widths 0.5, 0.75, 1: 0.42, 0.58 and 0.80 M parameters, 24, 51 and
    79 M multiply-adds. Of the last, pose and tracking take 0.10 M and 3 M.

    Parameters
    ----------
    n_points : int
        Landmarks to predict.
    width : float
        Channel multiplier.
    dropout : float
        Share of the alignment features dropped in training.
    input_size : int
        Side of the crops, a multiple of 16 and at least 48: it sizes the alignment head.
    shortcut : {"concat", "add", "none"}
        How shallow features, brought to the deep size by two separable convolutions of stride 2,
        join the deep ones.
    head : {"integral", "regression"}
        ``"regression"``: a linear layer on the pooled and the spatial features. ``"integral"``
        adds to it, for every landmark, the centre of mass of a softmax map at 1/8 of the crop's
        side (Sun et al., "Integral Human Pose Regression", ECCV 2018, equation 2), made from the
        features at that size and the deep ones: measured on 300-W, what earns most accuracy for
        its cost.
    heatmap : {"boundary", "points", "none"}
        What is drawn from the landmarks: nearness to the contours, or to the points.
    falloff : {"inverse", "gaussian"}
        Of nearness with distance, see :class:`asmkit.nn.cheap_heatmap.CheapHeatmap`.
    fusion : {"concat", "gate"}
        The heatmap as one more channel beside the features, or as a gate on them.
    coordinates : {"linear", "none"}
        Whether pose and face see the coordinates of the landmarks too, by one linear layer: a
        heatmap of 14×14 cells is a coarse picture of them.
    pose_form : {"euler", "6d"}
        What the pose head gives: three angles, or the continuous 6-D form of a rotation.
    contours : sequence of sequences of int
        Landmarks in the order in which ``"boundary"`` joins them, as
        :attr:`asmkit.schemes.Scheme.contours` holds them; a landmark on none is drawn as a point.
    confidence : {"none", "laplace", "gaussian"}
        Whether it states scales of its errors, see :mod:`asmkit.confidence`.
    visibility : bool
        Whether it tells covered landmarks, see :mod:`asmkit.nn.visibility`.

    Raises
    ------
    ValueError
        For an unknown choice or an ``input_size`` that does not fit.
    """

    def __init__(
        self,
        n_points: int,
        *,
        width: float = 1.0,
        dropout: float = 0.0,
        input_size: int = 112,
        shortcut: str = "concat",
        head: str = "integral",
        heatmap: str = "boundary",
        falloff: str = "inverse",
        fusion: str = "concat",
        coordinates: str = "linear",
        pose_form: str = "euler",
        contours: Sequence[Sequence[int]] = (),
        confidence: str = "none",
        visibility: bool = False,
    ) -> None:
        given = (shortcut, head, heatmap, falloff, fusion, coordinates, pose_form)
        for (name, known), value in zip(ATPN_CHOICES.items(), given, strict=True):
            if value not in known:
                raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(known)}")
        if input_size % _DEEP or input_size < 48:
            raise ValueError(
                f"input_size: got {input_size}, expected a multiple of {_DEEP}, at least 48"
            )
        first, half, shallow, middle, deep, joined = (
            scaled(channels, width) for channels in (32, 24, 32, 64, 128, 96)
        )
        squeezed, spatial = 32, 128  # at any width: the part that keeps where things are
        super().__init__(n_points, joined + spatial, dropout=dropout)
        self.stem = nn.Sequential(
            conv_bn(3, first, 3, stride=2),
            InvertedResidual(first, half, 1, 1),
        )
        self.shallow = _stage(half, shallow, 4, 2, 3)
        self.middle = _stage(shallow, middle, 4, 3, 4)
        self.deep = _stage(middle, deep, 4, 2, 3)
        self.shortcut_form = shortcut
        inputs = deep
        if shortcut != "none":
            brought = middle if shortcut == "concat" else deep
            self.shortcut = _shortcut(shallow, brought)
            inputs += brought if shortcut == "concat" else 0
        self.join = conv_bn(inputs, joined, 1)
        side = input_size // _DEEP
        self.spatial = nn.Sequential(
            conv_bn(joined, squeezed, 1),
            nn.Conv2d(squeezed, spatial, side, bias=False),
            nn.BatchNorm2d(spatial),
            nn.ReLU6(inplace=True),
        )
        if head == "integral":
            self.maps = IntegralMaps(middle, joined, n_points)
        draw = None
        if heatmap != "none":
            pieces = contour_pieces(contours if heatmap == "boundary" else (), n_points)
            draw = CheapHeatmap(pieces, input_size // _MIDDLE, falloff)
        seen = 2 * n_points if coordinates == "linear" else 0
        self.tasks = _Tasks(middle, side, draw, fusion, seen, pose_form)
        initialise(self)
        if self.maps is not None:
            self.maps.start()
        sizes = (middle, joined, joined + spatial, n_points)
        self.confidence = confidence_head(confidence, *sizes)
        self.visibility = visibility_head(visibility, shallow, *sizes)

    def find(self, images: Tensor) -> tuple[NetworkOutput, Features]:
        """All but scales and visibility, and the features they are stated by."""
        points, features = self.align(images)
        return self.judge(points, features), features

    def align(self, images: Tensor) -> tuple[Tensor, Features]:
        """Landmarks ``(n, n_points, 2)``, and the features that :meth:`judge` takes."""
        shallow = self.shallow(self.stem(images))  # (n, 32, s/4, s/4)
        middle = self.middle(shallow)  # (n, 64, s/8, s/8)
        deep = self.deep(middle)  # (n, 128, s/16, s/16)
        if self.shortcut_form == "concat":
            deep = torch.cat([deep, self.shortcut(shallow)], 1)
        elif self.shortcut_form == "add":
            deep = deep + self.shortcut(shallow)
        deep = self.join(deep)  # (n, 96, s/16, s/16)
        with torch.autocast(images.device.type, enabled=False):
            pooled = torch.flatten(adaptive_avg_pool2d(deep.float(), 1), 1)
            spatial = torch.flatten(self.spatial(deep.float()), 1)
            flat = self.dropout(torch.cat([pooled, spatial], 1))
            features = Features(shallow, middle, deep, flat)
            return self.landmarks(features), features

    def judge(self, points: Tensor, features: Features) -> NetworkOutput:
        """Pose and face of landmarks and features; the landmarks get no gradient from them."""
        assert self.tasks is not None  # set by __init__
        angles, face, rotation = self.tasks(points.detach(), features.middle)
        return NetworkOutput(points, angles, face, rotation)


def _stage(inputs: int, outputs: int, first: int, repeats: int, expansion: int) -> nn.Sequential:
    """Halve the size by one inverted residual, then ``repeats`` more."""
    return nn.Sequential(
        InvertedResidual(inputs, outputs, 2, first),
        *(InvertedResidual(outputs, outputs, 1, expansion) for _ in range(repeats)),
    )


def _shortcut(inputs: int, outputs: int) -> nn.Sequential:
    """Two depthwise-separable convolutions of stride 2: shallow features at the deep size."""
    return nn.Sequential(
        conv_bn(inputs, inputs, 3, stride=2, groups=inputs),
        conv_bn(inputs, outputs, 1),
        conv_bn(outputs, outputs, 3, stride=2, groups=outputs),
        conv_bn(outputs, outputs, 1, relu=False),
    )


class _Tasks(nn.Module):
    """Pose and face from features and the heatmap of the landmarks."""

    def __init__(
        self,
        channels: int,
        side: int,
        draw: CheapHeatmap | None,
        fusion: str,
        coordinates: int,
        pose_form: str,
    ) -> None:
        super().__init__()
        self.draw = draw
        self.gate: nn.Module | None = None
        inputs = channels
        if draw is not None:
            if fusion == "gate":
                self.gate = nn.Conv2d(1, channels, 1)
            else:
                inputs += 1
        self.blocks = nn.Sequential(
            InvertedResidual(inputs, channels, 2, 2),
            InvertedResidual(channels, channels, 1, 2),
        )
        # Pooling alone forgets where the heatmap is high, which is what tells the pose.
        self.spatial = nn.Sequential(
            conv_bn(channels, _TASK_SQUEEZED, 1),
            nn.Conv2d(_TASK_SQUEEZED, _TASK_SPATIAL, side, bias=False),
            nn.BatchNorm2d(_TASK_SPATIAL),
            nn.ReLU6(inplace=True),
        )
        features = channels + _TASK_SPATIAL
        self.geometry: nn.Module | None = None
        if coordinates:
            self.geometry = nn.Sequential(
                nn.Linear(coordinates, _TASK_SPATIAL, bias=False),
                nn.BatchNorm1d(_TASK_SPATIAL),
                nn.ReLU6(inplace=True),
            )
            features += _TASK_SPATIAL
        self.pose_form = pose_form
        self.pose_head = linear_head(features, 3 if pose_form == "euler" else 6)
        self.face_head = linear_head(features, 1)

    def forward(self, points: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.draw is not None:
            with torch.autocast(points.device.type, enabled=False):
                heat = self.draw(points.float()).to(features.dtype)
            if self.gate is not None:
                # 1 where the gate is shut half: a network that ignores it loses nothing.
                features = features * 2 * torch.sigmoid(self.gate(heat))
            else:
                features = torch.cat([features, heat], 1)
        features = self.blocks(features)
        with torch.autocast(points.device.type, enabled=False):
            features = features.float()
            parts = [adaptive_avg_pool2d(features, 1), self.spatial(features)]
            if self.geometry is not None:
                parts.append(self.geometry(points.float().flatten(1)))
            flat = torch.cat([part.flatten(1) for part in parts], 1)
            face = self.face_head(flat).squeeze(1)
            if self.pose_form == "euler":
                return to_angles(self.pose_head(flat)), face, None
            # The identity before training.
            start = torch.eye(3, dtype=flat.dtype, device=flat.device)[:2].reshape(1, 6)
            rotation = rotation_from_6d(to_angles(self.pose_head(flat)) + start)
            return angles_of(rotation), face, rotation
