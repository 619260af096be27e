"""Signals that ask for a stop: remembered, agreed on by exit status, handed back."""

import os
import signal

import pytest

from common.interruption import STOP_SIGNALS, Interrupted, StopRequest, leave_stopping_to_parent
from tests.conftest import RunMain


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_remembered_and_its_handler_comes_back(number: signal.Signals) -> None:
    seen = []
    before = signal.signal(number, lambda signum, frame: seen.append(signum))
    try:
        with StopRequest() as stop:
            assert stop.signum == 0
            os.kill(os.getpid(), number)
            assert stop.signum == number
            assert not seen
        os.kill(os.getpid(), number)
        assert seen == [number]
    finally:
        signal.signal(number, before)


def test_the_first_signal_counts() -> None:
    """Slurm sends several one after the other, and torchrun repeats them."""
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGUSR1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140)])
def test_the_exit_status_says_which_signal(run_main: RunMain, number: signal.Signals, status: int) -> None:
    def stopped(argv: object) -> int:
        raise Interrupted(number)

    assert run_main(stopped, []).status == status


def test_workers_survive_a_signal_to_the_group() -> None:
    child = os.fork()
    if child == 0:
        leave_stopping_to_parent(0)
        for number in STOP_SIGNALS:
            os.kill(os.getpid(), number)
        os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
