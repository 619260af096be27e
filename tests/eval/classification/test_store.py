from pathlib import Path

import numpy as np
import pytest
import torch

from eval.classification import store as module
from eval.classification.store import FeatureStore


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(module, "ROWS_PER_FILE", 4)
    return np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


def filled(root: Path, rows: np.ndarray) -> FeatureStore:
    store = FeatureStore(root, {"images": "a"}, len(rows))
    for number in range(store.num_files):
        span = store.span(number)
        store.write(number, rows[span.start : span.stop])
    store.finish()
    return store


def test_what_is_written_is_read(tmp_path: Path, rows: np.ndarray) -> None:
    store = filled(tmp_path, rows)
    assert (store.num_files, store.width, store.is_complete()) == (3, 3, True)
    for rows_per_block, count in ((1, 3), (5, 2), (100, 1)):
        blocks = list(store.blocks(rows_per_block))
        assert len(blocks) == count
        assert torch.equal(torch.cat([block for _, block in blocks]), torch.from_numpy(rows))
        for first, block in blocks:
            np.testing.assert_array_equal(block, rows[first : first + len(block)])
    indices = torch.tensor([9, 0, 5, 5, 8, 1])
    np.testing.assert_array_equal(store.rows(indices), rows[indices.numpy()])


def test_other_inputs_are_another_store(tmp_path: Path, rows: np.ndarray) -> None:
    filled(tmp_path, rows)
    assert FeatureStore(tmp_path, {"images": "a"}, 10).is_complete()
    assert not FeatureStore(tmp_path, {"images": "b"}, 10).is_complete()
    assert not FeatureStore(tmp_path, {"images": "a"}, 11).is_complete()


def test_a_store_with_a_missing_piece_is_not_finished(tmp_path: Path, rows: np.ndarray) -> None:
    store = FeatureStore(tmp_path, {"images": "a"}, 10)
    store.write(0, rows[:4])
    assert (store.has(0), store.has(1)) == (True, False)
    with pytest.raises(ValueError, match="must be a shared folder"):
        store.finish()
    assert not store.is_complete()
