"""A training recipe: a readable file that holds every choice of a training."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from asmkit.confidence import LIKELIHOODS

__all__ = ["Recipe", "parse_settings", "shipped_recipes"]

#: Options of ATPN, see asmkit.nn.ATPN.
ATPN_CHOICES = {
    "shortcut": ("concat", "add", "none"),
    "head": ("integral", "regression"),
    "heatmap": ("boundary", "points", "none"),
    "falloff": ("inverse", "gaussian"),
    "fusion": ("concat", "gate"),
    "coordinates": ("linear", "none"),
    "pose_form": ("euler", "6d"),
}
#: Heads of the networks of asmkit.nn.pooled; the first is the paper's.
POOLED_HEADS = ("pooled", "spatial", "shape")
#: Distances of the loss, see asmkit.nn.losses.
LOSS_FORMS = ("printed", "squared", "wing", "soft-wing")
_CHOICES = {
    "alpha": ("thirds", "to-zero", "none"),
    "asm_align": ("similarity", "box"),
    "loss_form": LOSS_FORMS,
    "confidence": ("none", *LIKELIHOODS),
    "teacher_views": ("plain", "flip"),
    "precision": ("auto", "float32", "bfloat16"),
    **ATPN_CHOICES,
    "head": ("auto", *ATPN_CHOICES["head"], *POOLED_HEADS),
}
_SHARES = (
    *("dropout", "mirror", "grey", "blur", "noise", "occlusion", "validation", "ema"),
    *("negatives", "trunk_rate", "asm_warp"),
)
#: What a number may be; any other is 0 or more.
_BOUNDS = {
    **dict.fromkeys(_SHARES, (0, 1)),
    "width": (0.01, 8),
    "input_size": (32, 1024),
    "margin": (0.5, 8),
    "epochs": (0, 1_000_000),
    "batch_size": (2, 65_536),  # batch normalisation needs more than one face
    "learning_rate": (1e-12, 1e3),
    "asm_warp_size": (0, 3),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice of a training; the shipped recipes name what differs from these defaults.

    A recipe is read from a TOML file with these names as keys, by :meth:`read`, and written beside
    the network that it trained.
    """

    # -- network
    arch: str = "asmnet"
    width: float = 1.0
    #: share of the pooled features dropped in training; 0.3 in the ASMNet paper
    dropout: float = 0.3
    #: side of the square crop in pixels
    input_size: int = 112
    #: side of the crop in units of the longer side of the tight landmark box
    margin: float = 1.25
    #: landmark scheme; "auto" finds it by the number of points
    scheme: str = "auto"
    #: what finds the landmarks: of asmnet and mobilenetv2 "pooled", "spatial" or "shape", see
    #: asmkit.nn.pooled; of atpn "integral" or "regression"; "auto" is the first of these
    head: str = "auto"
    #: modes of the shape model in the head "shape": a count, or a share of the variance
    shape_components: int | float = 0.98

    # -- network: options of ATPN, see asmkit.nn.ATPN
    shortcut: str = "concat"
    heatmap: str = "boundary"
    falloff: str = "inverse"
    fusion: str = "concat"
    coordinates: str = "linear"
    pose_form: str = "euler"

    # -- loss
    #: distance of the ASM-assisted loss: "printed", "squared", "wing" or "soft-wing", see
    #: asmkit.nn.losses
    loss_form: str = "printed"
    #: how α runs: "thirds", "to-zero" or "none"
    alpha: str = "thirds"
    #: weight of the squared error of the angles in radians; 0.5 in the ASMNet paper
    pose_weight: float = 0.5
    #: weight of the cross entropy of face or not
    face_weight: float = 1.0
    #: weight of the distance to the landmarks that a trained network finds in the same crop, beside
    #: that to the annotated ones; above 0 with a teacher, and only then
    teacher_weight: float = 0.0
    #: "plain", or "flip": the mean of what the teacher finds in the crop and in its mirror image
    teacher_views: str = "plain"
    #: frame of the shape model: "similarity", or "box" as in the paper
    asm_align: str = "similarity"
    #: modes of the smoothed targets: a count, or a share of the variance
    asm_components: int | float = 0.9

    # -- second stage: pose and face of a network that judges them from its landmarks (ATPN)
    head_epochs: int = 0
    #: learning rate of all else in that stage, in units of the stage's; 0 freezes the landmarks
    trunk_rate: float = 0.0
    #: share of the stage's crops that show no face, or not enough of one
    negatives: float = 0.5

    # -- last stage: how sure the network is of each landmark, and whether it is covered, all else
    # frozen
    #: "none", or the density by which the scales of the errors are learned: "laplace" or
    #: "gaussian", see asmkit.confidence. What a covered point looks like is learned from covered
    #: points, so ``occlusion`` must be above 0: in this stage it is also the chance that a piece
    #: of another photo lies over the face
    confidence: str = "none"
    confidence_epochs: int = 0

    # -- optimisation
    #: 0 only for a network that starts from a trained one, to train later stages alone
    epochs: int = 120
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 1e-3
    #: decay of the exponential moving average of the weights, which is what is kept
    ema: float = 0.999
    clip_norm: float = 5.0
    seed: int = 0
    #: "float32", "bfloat16", or "auto": bfloat16 where the processor has matrix units for it (AMX).
    #: Elsewhere, also with AVX-512 bfloat16, its depthwise gradients are slower than float32
    #: (measured: 0.75 times the images per second).
    precision: str = "auto"
    #: share of the images held out by a hash of their names
    validation: float = 0.1

    # -- augmentation
    #: standard deviation in degrees
    rotation: float = 20.0
    #: half width of the uniform logarithm of the scale
    scale: float = 0.2
    #: half width of the uniform shift, in units of the crop's side
    shift: float = 0.08
    #: chance of mirroring; needs a scheme with a mirror permutation
    mirror: float = 0.5
    #: half widths of the uniform changes: factor, grey levels, factor
    contrast: float = 0.4
    brightness: float = 40.0
    colour: float = 0.15
    #: chances
    grey: float = 0.2
    blur: float = 0.2
    noise: float = 0.3
    occlusion: float = 0.5
    #: chance of another plausible shape, drawn from a shape model near the image's own; the image
    #: is warped to it
    asm_warp: float = 0.0
    #: how far that shape is from the image's own: standard deviation of each coefficient of the
    #: model, in standard deviations of the training shapes
    asm_warp_size: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _check_type(field.name, value, field.default)
            _check_value(field.name, value)

    @classmethod
    def read(cls, source: str | os.PathLike[str], **changes: Any) -> Recipe:
        """Read a recipe from a TOML file, or a shipped one by its name (``"asmnet"``).

        ``changes`` replace what the file says.

        Raises
        ------
        ValueError
            For a broken file, an unknown key or a value out of range.
        FileNotFoundError
            When there is neither such a file nor such a shipped recipe.
        """
        text, where = _read_text(source)
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{where}: not a TOML file: {error}") from error
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted((values.keys() | changes.keys()) - known)
        if unknown:
            raise ValueError(f"{where}: unknown key {unknown[0]!r}; known are {sorted(known)}")
        return cls(**{**values, **changes})

    def to_toml(self) -> str:
        """The recipe as the text of a TOML file that :meth:`read` takes."""
        # JSON and TOML write strings, numbers and truth values alike.
        rows = (f"{key} = {json.dumps(value)}" for key, value in dataclasses.asdict(self).items())
        return "\n".join(rows) + "\n"


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with asmkit."""
    folder = resources.files("asmkit") / "recipes"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def _read_text(source: str | os.PathLike[str]) -> tuple[str, str]:
    if isinstance(source, str) and source in shipped_recipes():
        return (resources.files("asmkit") / "recipes" / f"{source}.toml").read_text("utf-8"), source
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"recipe: no file {path}, and no shipped recipe of that name; "
            f"shipped are {shipped_recipes()}"
        )
    try:
        return path.read_text("utf-8"), str(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file: {error}") from error


def _check_type(name: str, value: object, default: object) -> None:
    expected: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
    if not isinstance(value, expected) or isinstance(value, bool):
        raise ValueError(
            f"recipe: {name} is {value!r}, expected {' or '.join(t.__name__ for t in expected)}"
        )


def _check_value(name: str, value: Any) -> None:
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ValueError(
            f"recipe: {name} is {value!r}, expected one of {', '.join(_CHOICES[name])}"
        )
    if isinstance(value, str):
        return
    low, high = _BOUNDS.get(name, (0, 1e9))
    if not low <= value <= high:
        raise ValueError(f"recipe: {name} is {value}, expected {low:g} to {high:g}")


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs, each value as in TOML or a bare word.

    Raises
    ------
    ValueError
        For a pair without ``=``.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"setting {setting!r}: expected KEY=VALUE")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text.strip()
    return values
