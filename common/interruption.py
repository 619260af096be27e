"""Stopping on request: a scheduler's signal ends long work at its next safe point instead of at once."""

import signal
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send before they kill: SIGTERM (Slurm, Kubernetes, systemd), SIGUSR1 (customary for `sbatch --signal`) and SIGUSR2
(submitit's)."""

_SIGNALLED = 128
"""A shell's exit status for a command that signal N ended is 128 + N."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Work was stopped on request after saving its state; the same command continues it."""

    def __init__(self, signum: int) -> None:
        """Store the signal's number."""
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def status(self) -> int:
        """The exit status: 128 + N, 143 for SIGTERM.

        Not 0, which would tell a scheduler that the work is complete and need not be started again.
        """
        return _SIGNALLED + self.signum


class StopRequest:
    """While entered, signals are only remembered; afterwards whoever handled them before does again."""

    def __init__(self, signals: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
        """Store which signals."""
        self._signals = signals
        self._previous: dict[signal.Signals, Any] = {}
        self.signum = 0
        """The signal that came first; 0 if none."""

    def __enter__(self) -> "StopRequest":
        """Take over the signals; only the main thread may."""
        self._previous = {number: signal.signal(number, self._remember) for number in self._signals}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Hand the signals back."""
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        # Repetitions are nothing new: Slurm signals every process, and torchrun passes its own on.
        del frame
        self.signum = self.signum or signum


def leave_stopping_to_parent(worker: int) -> None:
    """For the start of a data loader's worker: a signal to the whole group must not end it while the parent finishes its step.

    Args:
        worker: Its number.
    """
    del worker
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
