"""Axes: from values to coordinates, with round ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_TICKS = 5
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear axis."""

    low: float
    """Value at `start`."""
    high: float
    """Value at `end`; above `low`."""
    step: float
    """Between two ticks."""
    start: float
    """Coordinate of `low`."""
    end: float
    """Coordinate of `high`."""

    def place(self, value: float) -> float:
        """The value's coordinate, to a tenth."""
        part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Coordinate and label of every tick."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + number * self.step for number in range(count + 1)]
        # A sum such as 0.30000000000000004 is the tick 0.3.
        return [(self.place(value), f"{round(value, 12):.6g}") for value in values]


def round_scale(values: Iterable[float], start: float, end: float, *, zero: bool = True, highest: float = math.inf) -> Scale:
    """An axis whose ends are round and hold all values.

    Args:
        values: Those that are not finite do not count.
        start: Coordinate of the low end.
        end: Coordinate of the high end.
        zero: Whether the axis begins at 0, or below it where a value is negative.
        highest: Largest value there can be, such as 100 percent; the axis does not pass it.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    # Closer than digits can tell apart, up to a difference of which no logarithm is left.
    if high - low <= _SAME * max(1.0, abs(low), abs(high)):
        high = low + max(1.0, abs(low))
    rough = (high - low) / _TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(part * power for part in _ROUND if part * power >= rough * (1 - 1e-9))
    bottom, top = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ceiling = top * step if high > highest else min(top * step, max(highest, (bottom + 1) * step))
    return Scale(low=bottom * step, high=ceiling, step=step, start=start, end=end)
