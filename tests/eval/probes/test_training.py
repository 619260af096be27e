"""Batches of a probe's training: what every process makes of them and sends to the others, and what a run has left."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from eval.probes import training
from eval.probes.training import Draw, Maps, training_batches

CPU = torch.device("cpu")


class OnGpu(Tensor):
    """A tensor that only `cpu` makes a plain one."""

    def cpu(self, *_given: Any, **_named: Any) -> Tensor:
        return self.as_subclass(Tensor)


def read(draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    """Images are the numbers of their pass and their own."""
    return torch.tensor(draws), torch.tensor(draws)[:, 1]


def extract(images: Tensor) -> Maps:
    found = images.as_subclass(OnGpu)
    return {"last": [found], "0+last": [images.as_subclass(OnGpu), found]}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the second of two processes sends to the other, which sends the same."""
    values: list[Any] = []

    def gather(value: Any) -> list[Any]:
        values.append(value)
        return [value, value]

    monkeypatch.setattr(training, "gather_objects", gather)
    monkeypatch.setattr(training, "world_size", lambda: 2)
    monkeypatch.setattr(training, "rank", lambda: 1)
    return values


def test_maps_are_on_the_cpu_when_they_are_sent_to_other_processes(sent: list[Any]) -> None:
    (joined,) = training_batches(0, 1, 7, 3, 0, read, 1, 0, extract, CPU)
    ((maps, _),) = sent
    assert {type(found) for listed in maps.values() for found in listed} == {Tensor}
    assert maps["last"][0] is maps["0+last"][1]  # is pickled once
    assert joined[0]["last"][0].shape == (2, 2)
