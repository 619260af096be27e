"""Workers keep to cores of their own, different ones in each process of a machine."""

import os

import cv2
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pretrain.data.workers import WorkerSetup, worker_cores


class Surroundings(Dataset[tuple[set[int], int, int]]):
    """Where an item is made: the cores, and the threads of OpenCV and of torch."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[set[int], int, int]:
        return os.sched_getaffinity(0), cv2.getNumThreads(), torch.get_num_threads()


def test_workers_are_kept_to_a_core_and_a_thread() -> None:
    allowed = os.sched_getaffinity(0)
    cores = [max(allowed), min(allowed)]

    def made(setup: WorkerSetup) -> list[tuple[set[int], int, int]]:
        return [tuple(item) for item in DataLoader(Surroundings(), batch_size=None, num_workers=2, worker_init_fn=setup)]

    assert made(WorkerSetup(cores)) == [({core}, 1, 1) for core in cores]
    assert made(WorkerSetup(None)) == [(allowed, 1, 1)] * 2
    assert os.sched_getaffinity(0) == allowed


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
