"""Batches of a probe's training: what every process makes of them and sends to the others, and what a run has left."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common import distributed
from eval.linear_segmentation import transforms
from eval.linear_segmentation.protocol import RULES
from eval.linear_segmentation.task import LARGEST_TEST_PAIR
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


def test_processes_share_each_batch_of_every_pass_and_continue_in_it(sent: list[Any]) -> None:
    """Two batches of three of each pass over seven images; this process gets the last image of each."""
    order = [torch.randperm(7, generator=torch.Generator().manual_seed(training.seed_of(5, passed))) for passed in (0, 1, 2)]
    wanted = [[passed, int(order[passed][place])] for passed, place in ((0, 2), (0, 5), (1, 2), (1, 5), (2, 2))]
    for first in (0, 3):
        sent.clear()
        list(training_batches(first, 5, 7, 3, 5, read, 1, 0, extract, CPU))
        assert [maps["last"][0].tolist() for maps, _ in sent] == [[draw] for draw in wanted[first:]]


def test_shared_memory_is_wanted_for_a_process_own_share_of_a_batch(sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = []

    def load(_read: Any, _items: Any, item_bytes: int, *_: Any) -> Iterator[tuple[Tensor, Tensor]]:
        wanted.append(item_bytes)
        return repeat(read([(0, 0)]))

    monkeypatch.setattr(training, "load_in_order", load)
    for batch_size in (8, 3):
        next(training_batches(0, 10, 16, batch_size, 0, read, 1000, 0, extract, CPU))
    assert wanted == [4 * 1000, 1 * 1000]


def test_shared_memory_is_wanted_for_whole_test_images() -> None:
    """Of a photograph and of its labels, which are not resized."""
    image, labels_HW = Image.new("RGB", (4032, 3024)), np.zeros((3024, 4032), np.uint8)
    pair = transforms.test_pair(image, labels_HW, RULES["dinov3"])
    assert sum(found.nbytes for found in pair) <= LARGEST_TEST_PAIR


def test_processes_that_find_different_progress_do_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "head.pth"
    monkeypatch.setattr(distributed, "gather_objects", lambda value: [value, "0"])
    assert training.resume(checkpoint, "digest", {}) == {"updates": 0}
    torch.save({"inputs": "digest", "updates": 4}, checkpoint)
    with pytest.raises(ValueError, match=r"head.pth, which all machines must share: .* 4 \(process 0\), 0 \(process 1\)"):
        training.resume(checkpoint, "digest", {})
