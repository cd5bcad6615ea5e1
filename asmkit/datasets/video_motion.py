"""How the faces of a synthetic video move: scenarios, paths, turns, expressions.

Everything is a function of time alone, so a longer video begins with the shorter one. Free motion
is a sum of two sines whose amplitude and speed are bounded by construction. Events (an object
passes, neighbours change places, a face goes away) take turns in slots of equal length.

Lengths are pixels unless said otherwise; ``unit`` is the size of a face at its middle distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from asmkit.datasets.face_modes import face_modes

__all__ = ["SCENARIOS", "Motion", "Stage", "move", "set_stage"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_ANGLES = np.array([40.0, 20.0, 20.0])  # yaw, pitch, roll in degrees
_ANGLE_SPEEDS = np.array([120.0, 60.0, 60.0])  # degrees a second

#: What a face covers around its centre, in units: sideways, up and down, whatever its pose.
_ASIDE, _UPRIGHT = 0.68, 0.72
#: The same with hair and ears.
_HEAD_ASIDE, _HEAD_UP = 0.8, 1.2


@dataclass(frozen=True)
class Scenario:
    """What happens in a video.

    Attributes
    ----------
    acts : what happens in slot after slot: "rest", "cover", "cross" or "leave".
    roams : whether faces use all of their part of the picture, or keep near one place.
    least_faces : how many faces it takes.
    """

    acts: tuple[str, ...]
    roams: bool = False
    least_faces: int = 1


SCENARIOS: Mapping[str, Scenario] = {
    "wander": Scenario(("rest",), roams=True),
    "cover": Scenario(("cover",), roams=True),
    "cross": Scenario(("cross",), least_faces=2),
    "leave": Scenario(("leave", "rest")),
    "all": Scenario(("rest", "cover", "cross", "leave")),
}


@dataclass(frozen=True, eq=False)
class Stage:
    """Where faces stand and how far they may go.

    Attributes
    ----------
    size : width and height of the picture.
    unit : size of a face at its middle distance.
    nearest : the largest magnification; the smallest is its inverse.
    homes : (f, 2) resting places of the face centres, from left to right.
    reach : (2,) how far a face strays from its place, to the sides and up or down.
    speed : (2,) how fast it does so, in pixels a second.
    acts : what happens in slot after slot.
    slot : seconds that an act takes.
    ways : (f, 2) the shortest displacement that takes a head from a place out of the picture.
    """

    size: tuple[int, int]
    unit: float
    nearest: float
    homes: Array
    reach: Array
    speed: Array
    acts: tuple[str, ...]
    slot: float
    ways: Array


@dataclass(frozen=True, eq=False)
class Motion:
    """The state of n frames and f faces.

    Attributes
    ----------
    centre : (n, f, 2) where the middle of each face is.
    magnification : (n, f) size over the size at the middle distance.
    euler : (n, f, 3) degrees.
    expression : (n, f, k) coefficients of the expression fields.
    gaze : (n, f, 2) centimetres.
    slot : (n,) number of the slot.
    covered : (n,) the face before which an object passes, or -1.
    cover_centre : (n, 2) the middle of that object.
    pan : (n, 2) displacement of the background, between -1 and 1.
    """

    centre: Array
    magnification: Array
    euler: Array
    expression: Array
    gaze: Array
    slot: Ints
    covered: Ints
    cover_centre: Array
    pan: Array


def _depth_range(n_faces: int, scenario: str) -> float:
    """The largest magnification; the smallest is its inverse."""
    return 1.3 if n_faces == 1 and SCENARIOS[scenario].roams else 1.15


def largest_unit(size: tuple[int, int], n_faces: int, scenario: str) -> float:
    """The largest face of which ``n_faces`` fit side by side into the picture."""
    room = min(size[0] / n_faces / (2 * _ASIDE), size[1] / (2 * _UPRIGHT))
    return room / _depth_range(n_faces, scenario)


def set_stage(size: tuple[int, int], n_faces: int, unit: float, scenario: str) -> Stage:
    """Give every face its place in a row, and the acts the time that they need."""
    kind = SCENARIOS[scenario]
    width, height = size
    nearest = _depth_range(n_faces, scenario)
    largest = unit * nearest
    acts = tuple(act for act in kind.acts if act != "cross" or n_faces > 1)
    room = np.array([width / n_faces / 2 - _ASIDE * largest, height / 2 - _UPRIGHT * largest])
    if kind.roams:
        reach, speed = room, np.array([1.5, 0.9]) * unit
        reach[1] = min(reach[1], np.inf if n_faces == 1 else 0.35 * unit)
    else:
        reach, speed = np.minimum(room, [0.12 * unit, 0.15 * unit]), np.array([0.3, 0.25]) * unit
    pitch = width / n_faces if "leave" in acts or kind.roams else min(width / n_faces, 2 * unit)
    homes = np.stack([width / 2 + pitch * (np.arange(n_faces) - (n_faces - 1) / 2)] * 2, axis=1)
    homes[:, 1] = height / 2
    if n_faces == 1 and "leave" in acts:
        homes[0, 0] = _ASIDE * largest + reach[0]  # by the edge: the way out is short
    ways = _ways_out(homes, size, largest, reach)
    slots = [4.0]
    if "cross" in acts:
        slots.append(pitch / (0.8 * _travel_speed(unit)))
    if "leave" in acts:
        slots.append(float(np.abs(ways).max()) / (_LEAVING * _travel_speed(unit)))
    return Stage(size, unit, nearest, homes, reach, speed, acts, max(slots), ways)


def _ways_out(homes: Array, size: tuple[int, int], largest: float, reach: Array) -> Array:
    """The shorter of the way through the nearer side and the way down."""
    width, height = size
    left = homes[:, 0] <= width / 2
    aside = np.where(left, homes[:, 0], width - homes[:, 0]) + _HEAD_ASIDE * largest + reach[0]
    down = height - homes[:, 1] + _HEAD_UP * largest + reach[1]
    sideways = np.stack([np.where(left, -aside, aside), np.zeros(len(homes))], axis=1)
    downwards = np.stack([np.zeros(len(homes)), down], axis=1)
    return np.where((aside <= down)[:, None], sideways, downwards)


_RAMP = 0.2


def _ease(u: Array) -> Array:
    """From 0 to 1 while u does so, at constant speed but for the beginning and the end."""
    u = np.clip(u, 0, 1)
    first, last = np.minimum(u, _RAMP), np.clip(u - (1 - _RAMP), 0, None)
    way = first**2 / (2 * _RAMP) + np.clip(u - _RAMP, 0, 1 - 2 * _RAMP)
    return np.asarray((way + last - last**2 / (2 * _RAMP)) / (1 - _RAMP))


def _travel_speed(unit: float) -> float:
    """The mean speed, in pixels a second, at which faces change places or leave."""
    return 1.15 * unit * (1 - _RAMP)


_SINES = np.array([0.65, 0.35])
_FASTEST = 0.6  # hertz


def _waver(rng: np.random.Generator, t: Array, reach: float, speed: float) -> Array:
    """A sum of sines that stays within ±reach and never changes faster than ``speed``."""
    share, phase = rng.uniform(0.5, 1.0, 2), rng.uniform(0, 2 * np.pi, 2)
    fastest = min(speed / (2 * np.pi * reach), _FASTEST) if reach > 0 else 0.0
    return np.asarray(reach * np.sin(2 * np.pi * fastest * share * t[:, None] + phase) @ _SINES)


def move(seed: int, stage: Stage, times: Array) -> tuple[Motion, Ints]:
    """The motion at ``times`` (n,), and the faces in the order from the farthest to the nearest.

    Each face keeps to its own range of distances: the order never changes.
    """
    n_faces = len(stage.homes)
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(n_faces)
    lane = np.argsort(order)
    step = 2 * np.log(stage.nearest) / n_faces
    pan = np.stack([_waver(rng, times, 1.0, 0.6) for _ in range(2)], axis=1)
    faces = [_Free(seed, k, stage, times) for k in range(n_faces)]
    free, magnification = (
        np.stack([f.place for f in faces], axis=1),
        np.empty((len(times), n_faces)),
    )
    for k, face in enumerate(faces):
        middle = (lane[k] - (n_faces - 1) / 2) * step
        # a gap between the ranges of two faces, so that even neighbours' order is clear
        magnification[:, k] = np.exp(middle + 0.48 * step * face.nearing)
    slot = np.floor(times / stage.slot).astype(np.int64)
    centre = free + _travel(stage, slot, times / stage.slot - slot)
    covered, cover_centre = _covers(seed, stage, slot, times / stage.slot - slot, centre)
    motion = Motion(
        centre=centre,
        magnification=magnification,
        euler=np.stack([f.euler for f in faces], axis=1),
        expression=np.stack([f.expression for f in faces], axis=1),
        gaze=np.stack([f.gaze for f in faces], axis=1),
        slot=slot,
        covered=covered,
        cover_centre=cover_centre,
        pan=pan,
    )
    return motion, order


class _Free:
    """What one face does by itself: ``place`` is relative to its home."""

    def __init__(self, seed: int, face: int, stage: Stage, t: Array) -> None:
        rng = np.random.default_rng([seed, 2, face + 1])
        self.place = np.stack(
            [_waver(rng, t, *g) for g in zip(stage.reach, stage.speed, strict=True)], 1
        )
        turns = zip(MAX_ANGLES, _ANGLE_SPEEDS, strict=True)
        self.euler = np.stack([_waver(rng, t, *turn) for turn in turns], axis=1)
        self.nearing = _waver(rng, t, 1.0, 1.0)
        self.gaze = np.stack([_waver(rng, t, 0.35, 0.7), _waver(rng, t, 0.15, 0.3)], axis=1)
        self.expression = _expressions(rng, np.random.default_rng([seed, 3, face + 1]), t)


# How strongly a face shows each expression at most, drawn once for every face.
_STRENGTHS: Mapping[str, tuple[float, float]] = {
    "smile": (0.3, 1.0),
    "pucker": (0.0, 0.5),
    "corners down": (0.0, 0.5),
    "brows up": (0.2, 0.9),
    "frown": (0.0, 0.7),
    "jaw open": (0.05, 0.25),
    "upper lip up": (0.1, 0.8),
    "lower lip down": (0.1, 0.8),
}
_BLINKS_EVERY, _BLINK_LASTS = 3.0, 0.3  # seconds


def _expressions(rng: np.random.Generator, blinks: np.random.Generator, t: Array) -> Array:
    amounts = {}
    for name, (low, high) in _STRENGTHS.items():
        strength = rng.uniform(low, high)
        amounts[name] = strength * (0.5 + 0.5 * _waver(rng, t, 1.0, 2.5)) ** 2
    amounts["pucker"] *= (1 - amounts["smile"]).clip(0)
    amounts["corners down"] *= (1 - amounts["smile"]).clip(0)
    narrow = 0.04 + _waver(rng, t, 0.12, 0.2)
    shut = narrow + (1 - narrow) * _blinks(blinks, t)
    amounts |= {"right eye shut": shut, "left eye shut": shut}
    return np.stack([amounts[name] for name in face_modes().expression], axis=1)


def _blinks(rng: np.random.Generator, t: Array) -> Array:
    """1 where the eyes are shut, once in a while."""
    turn = np.floor(t / _BLINKS_EVERY).astype(np.int64)
    starts = rng.uniform(0, _BLINKS_EVERY - _BLINK_LASTS, turn.max(initial=0) + 1)
    u = (t - turn * _BLINKS_EVERY - starts[turn]) / _BLINK_LASTS
    return np.where((u > 0) & (u < 1), np.sin(np.pi * u) ** 2, 0.0)


_LEAVING = 0.46  # of a slot: the way out, and as much for the way back


def _travel(stage: Stage, slot: Ints, u: Array) -> Array:
    """Where faces stand ``(n, f, 2)`` without their free motion; ``u`` is the time in a slot."""
    n_faces = len(stage.homes)
    at = np.empty((len(slot), n_faces, 2))
    place = np.arange(n_faces)  # of each face
    n_slots = int(slot.max(initial=-1)) + 1
    bounds = np.searchsorted(slot, np.arange(n_slots + 1))
    for number, (start, stop) in enumerate(pairwise(bounds)):
        here = stage.homes[place]
        at[start:stop] = here
        act, turn = _act(stage, number), number // len(stage.acts)
        now = u[start:stop, None]
        if act == "leave":
            face = turn % n_faces
            away = _ease((now - 0.02) / _LEAVING) - _ease((now - 0.52) / _LEAVING)
            at[start:stop, face] += away * stage.ways[place[face]]
        elif act == "cross":
            place = _exchanged(place, turn)
            way = _ease((now - 0.1) / 0.8)[..., None]
            at[start:stop] += way * (stage.homes[place] - here)
    return at


def _act(stage: Stage, slot: int) -> str:
    return stage.acts[slot % len(stage.acts)]


def _exchanged(place: Ints, turn: int) -> Ints:
    """Neighbours change places: 1st with 2nd …, next time 2nd with 3rd …."""
    n_places = len(place)
    other = np.arange(n_places)
    first = turn % 2 if n_places > 2 else 0
    for left in range(first, n_places - 1, 2):
        other[left], other[left + 1] = left + 1, left
    return np.asarray(other[place])


def _covers(seed: int, stage: Stage, slot: Ints, u: Array, centre: Array) -> tuple[Ints, Array]:
    """The face that is covered ``(n,)``, -1 for none, and the middle of the object ``(n, 2)``."""
    acts = np.array([act == "cover" for act in stage.acts])
    turn, n_faces = slot // len(stage.acts), centre.shape[1]
    covered = np.where(acts[slot % len(stage.acts)], turn % n_faces, -1)
    seen = np.unique(slot[covered >= 0])
    angle = np.zeros(len(slot))
    for number in seen:
        angle[slot == number] = np.random.default_rng([seed, 4, number + 1]).uniform(0, 2 * np.pi)
    v = 2 * u - 1
    far = np.hypot(*stage.size) + 2 * stage.unit * stage.nearest
    away = np.sign(v) * far * (np.clip(np.abs(v) - 0.15, 0, None) / 0.85) ** 1.4
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    place = centre[np.arange(len(slot)), covered.clip(0)] + away[:, None] * direction
    return covered, np.where((covered >= 0)[:, None], place, np.nan)
