"""Features that are computed once: what a file holds, what makes another folder, and what is missed."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from eval.probes.cache import FeatureStore

MAPS = np.arange(7 * 2 * 3 * 3, dtype=np.float32).reshape(7, 2, 3, 3)


def store(root: Path, dtype: npt.DTypeLike = np.float16, shape: tuple[int, ...] = (2, 3, 3), **inputs: str) -> FeatureStore:
    return FeatureStore(root, {"backbone": "a", "images": "b", **inputs}, 7, shape, dtype, 3)


def fill(kept: FeatureStore, maps: npt.NDArray[np.float32] = MAPS) -> None:
    for number, span in enumerate(kept.spans):
        kept.write(number, maps[span.start : span.stop])


def test_maps_come_back_in_any_order(tmp_path: Path) -> None:
    kept = store(tmp_path)
    assert kept.spans == [range(3), range(3, 6), range(6, 7)]
    fill(kept)
    rows = torch.tensor([6, 0, 3, 0])
    assert kept.rows(rows).dtype == torch.float16
    assert torch.equal(store(tmp_path).rows(rows).float(), torch.from_numpy(MAPS)[rows])
    exact = MAPS + np.float32(1e-4)
    kept = store(tmp_path, np.float32)
    fill(kept, exact)
    assert np.array_equal(kept.rows(torch.arange(7)).numpy(), exact)


def test_a_file_of_a_machine_that_crashed_is_not_there(tmp_path: Path) -> None:
    kept = store(tmp_path)
    fill(kept)
    kept.require_complete()
    kept.path(1).write_bytes(kept.path(1).read_bytes()[:-10])
    assert [kept.has(number) for number in range(3)] == [True, False, True]
    with pytest.raises(ValueError, match=r"00001.npy and 0 more .* several machines must share --cache"):
        kept.require_complete()


def test_whatever_changes_a_map_is_another_folder(tmp_path: Path) -> None:
    others: list[dict[str, Any]] = [{}, {"backbone": "c"}, {"images": "c"}, {"layer": "block 3"}]
    assert len({store(tmp_path, **other).folder for other in others}) == len(others)


def test_files_of_another_shape_or_type_are_not_there(tmp_path: Path) -> None:
    fill(store(tmp_path))
    assert not store(tmp_path, np.float32).has(0)
    assert not store(tmp_path, shape=(2, 3, 4)).has(0)
