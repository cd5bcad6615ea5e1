"""One-Euro filter: little jitter while a thing rests, little lag while it moves.

G. Casiez, N. Roussel, D. Vogel (2012). 1€ Filter: a simple speed-based low-pass filter for noisy
input in interactive systems. CHI 2012. With Δ the time since the last sample::

    a(f) = 1 / (1 + 1 / (2π f Δ))                 weight of the new sample at cutoff frequency f
    s ← s + a(d_cutoff) (|x − x_last| / Δ − s)    speed, itself filtered (s a vector, see below)
    y ← y + a(min_cutoff + beta |s|) (x − y)      result

Two things differ from the paper's listing. The speed of a point is the length of its filtered
velocity *vector*, so filtering follows every shift, rotation and mirroring of the samples; the
paper filters x and y each with a cutoff of its own. And the speed is measured in a unit that the
caller gives (the size of the face), so the parameters mean the same at any resolution.

The default parameters were chosen on a rendered face that wanders about, followed by ASMNet at 30
frames a second: jitter (second difference of the error) 1.48 % of the inter-ocular distance without
the filter, 0.91 % with it, at a mean error of 5.61 % against 5.47 %; with half the ``beta`` jitter
is 0.72 %, but the lag brings the error to 6.01 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["OneEuro", "OneEuroFilter"]

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OneEuro:
    """Parameters of the filter; :meth:`start` makes one for one thing to follow.

    Parameters
    ----------
    min_cutoff : float
        Cutoff frequency in Hz of what does not move; lower takes away more jitter.
    beta : float
        Hz that a speed of one unit per second adds to it; higher takes away more lag. For
        landmarks the unit is the size of the face, for angles it is 60°.
    d_cutoff : float
        Cutoff frequency in Hz of the speed.

    Raises
    ------
    ValueError
        When a cutoff is not positive or ``beta`` is negative.
    """

    min_cutoff: float = 1.5
    beta: float = 12.0
    d_cutoff: float = 1.0

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "d_cutoff"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}: got {value}, expected a frequency in Hz above 0")
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise ValueError(f"beta: got {self.beta}, expected a number of at least 0")

    def lag(self, speed: float = 0.0) -> float:
        """Seconds by which the result is behind a thing in even motion, once it has settled.

        On a ramp ``x = v t`` the result tends to ``v (t − lag)`` with
        ``lag = 1 / (2π (min_cutoff + beta |v|))``, whatever the frame rate: times the frame rate,
        that is the lag in frames.

        Parameters
        ----------
        speed : float
            ``v`` in units per second.
        """
        return 1 / (2 * math.pi * (self.min_cutoff + self.beta * abs(speed)))

    def start(self, period: float | None = None) -> OneEuroFilter:
        """Begin to follow something.

        Parameters
        ----------
        period : float, optional
            360 for angles in degrees: then 179° and −179° are two degrees apart, and results lie
            in [−180, 180).
        """
        return OneEuroFilter(self, period)


class OneEuroFilter:
    """The filter of one thing: samples in, in the order of time, filtered samples out.

    Made by :meth:`OneEuro.start`. It holds the last result and its speed, nothing older.
    """

    def __init__(self, parameters: OneEuro, period: float | None = None) -> None:
        self.parameters = parameters
        self.period = period
        self._time: float | None = None
        self._last = self._result = self._velocity = np.empty(0)

    def __call__(self, sample: npt.ArrayLike, time: float, unit: float = 1.0) -> Doubles:
        """Filter the next sample.

        Parameters
        ----------
        sample : array_like (..., d)
            The last axis holds the coordinates of one point, of which the speed is taken together;
            all points of the other axes are filtered on their own. A point with a NaN comes out as
            NaN, and begins anew when it is back.
        time : float
            In seconds, later than that of the sample before.
        unit : float
            What the speed is measured in, in the unit of the sample.

        Returns
        -------
        ndarray (..., d)

        Raises
        ------
        ValueError
            When the time does not go on, the shape is another than before, or ``unit`` is not
            positive.
        """
        new = np.array(sample, dtype=np.float64)
        new[np.isnan(new).any(axis=-1)] = np.nan
        if not unit > 0:
            raise ValueError(f"unit: got {unit}, expected a number above 0")
        if self._time is None:
            self._begin(new)
        else:
            self._advance(new, time - self._time, unit)
        self._time = time
        return self._result.copy()

    def _begin(self, new: Doubles) -> None:
        self._last, self._result, self._velocity = new, self._wrapped(new), np.zeros_like(new)

    def _advance(self, new: Doubles, step: float, unit: float) -> None:
        if not step > 0:
            raise ValueError(f"time: got a step of {step} s, expected the time to go on")
        if new.shape != self._last.shape:
            raise ValueError(
                f"sample: got shape {new.shape} after {self._last.shape}; "
                "start another filter for another thing"
            )
        setting = self.parameters
        velocity = self._wrapped(new - self._last) / (step * unit)
        self._velocity = self._velocity + _weight(setting.d_cutoff, step) * (
            velocity - self._velocity
        )
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True)
        weight = _weight(setting.min_cutoff + setting.beta * speed, step)
        result = self._result + weight * self._wrapped(new - self._result)
        # A point that was missing, or is, has no past: it begins with what is seen now.
        fresh = np.isnan(result).any(axis=-1, keepdims=True)
        self._result = self._wrapped(np.where(fresh, new, result))
        self._velocity = np.where(fresh, 0.0, self._velocity)
        self._last = new

    def _wrapped(self, values: Doubles) -> Doubles:
        if self.period is None:
            return values
        half = self.period / 2
        return np.asarray((values + half) % self.period - half)


def _weight(cutoff: float | Doubles, step: float) -> Doubles:
    """Weight of the new sample in a first-order low-pass of this cutoff (Hz) and step (s)."""
    return np.asarray(1 / (1 + 1 / (2 * math.pi * np.asarray(cutoff) * step)))
