"""Workers keep to cores of their own, different ones in each process of a machine."""

import os

import pytest

from pretrain.data.workers import worker_cores


@pytest.fixture
def six_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7, 2, 3, 11, 5, 8})


def test_each_worker_has_a_core(six_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_cores(6) == [2, 3, 5, 7, 8, 11]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    shares = []
    for process in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(process))
        shares.append(worker_cores(2))
    assert shares == [[2, 3], [5, 7], [8, 11]]


def test_too_few_cores(six_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="8 workers on this machine and 6 cores"):
        worker_cores(4)


def test_systems_without_such_a_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(ValueError, match="leave it out"):
        worker_cores(1)
