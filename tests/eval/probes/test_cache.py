"""Maps that are computed once: what a file holds, what makes another folder, and that a killed run continues."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eval.probes.cache as module
from eval.probes.cache import FeatureStore, map_store

MAPS = np.arange(7 * 2 * 3 * 3, dtype=np.float32).reshape(7, 2, 3, 3)


def store(root: Path, **changed: Any) -> FeatureStore:
    options = {"backbone_sha256": "a", "data_sha256": "b", "input_size": (48, 48), "layer": "last, normed"}
    return map_store(root, **{**options, "num_images": 7, "shape": (2, 3, 3), **changed})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FILE_BYTES", 3 * MAPS[0].size * 2 + 1)  # three images of float16


def test_maps_come_back_in_any_order_from_files_of_bounded_size(tmp_path: Path) -> None:
    made: list[range] = []

    def make(span: range) -> Any:
        made.append(span)
        return MAPS[span.start : span.stop]

    kept = store(tmp_path)
    kept.fill(make)
    assert made == [range(3), range(3, 6), range(6, 7)]
    rows = torch.tensor([6, 0, 3, 0])
    assert kept.rows(rows).dtype == torch.float16
    assert torch.equal(kept.rows(rows).float(), torch.from_numpy(MAPS)[rows])
    kept.path(1).write_bytes(kept.path(1).read_bytes()[:-10])  # of a machine that crashed
    kept.fill(make)
    assert made[3:] == [range(3, 6)]
    assert torch.equal(store(tmp_path).rows(rows).float(), torch.from_numpy(MAPS)[rows])


def test_whatever_changes_a_map_is_another_folder(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"backbone_sha256": "c"},
        {"data_sha256": "c"},
        {"input_size": (48, 64)},
        {"layer": "block 3"},
        {"dtype": np.float32},
        {"shape": (2, 3, 4)},
    ]
    assert len({store(tmp_path, **change).folder for change in changes}) == len(changes)


def test_float32_is_exact(tmp_path: Path) -> None:
    kept = store(tmp_path, dtype=np.float32)
    exact = MAPS + np.float32(1e-4)
    kept.fill(lambda span: exact[span.start : span.stop])
    assert np.array_equal(kept.rows(torch.arange(7)).numpy(), exact)


def test_files_of_another_machine_are_missed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="several machines must share --cache"):
        store(tmp_path).require_complete()
