"""A progress bar that also tells the log how long a task takes."""

import logging
import time
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)

ESTIMATE_AFTER_S = 60  # by then, the first slow steps no longer count much


class Progress(tqdm):
    """tqdm's bar, which logs once, after its first minute, how long the whole takes on this machine.

    It does so too where no terminal shows a bar (`disable=None`), as in a Slurm job; not where it is disabled (`disable=True`).
    """

    def __init__(self, **options: Any) -> None:
        self._begin, self._done, self._is_told = time.monotonic(), 0.0, options.get("disable") is True
        self._label, self._whole = f"{options['desc']}", options["total"] - options.get("initial", 0)
        self._unit = options["unit"]
        super().__init__(**options)

    def update(self, n: float | None = 1) -> bool | None:
        self._done += n or 0
        seconds = time.monotonic() - self._begin
        if not self._is_told and self._done and seconds >= ESTIMATE_AFTER_S:
            self._is_told = True
            whole = duration(seconds / self._done * self._whole)
            text = "%s: %d %ss take about %s on this machine (%d took %s)"
            logger.info(text, self._label, self._whole, self._unit, whole, self._done, duration(seconds))
        return super().update(n)


def duration(seconds: float) -> str:
    """A time such as `48 s`, `7 min 05 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
