import pytest

from eval.openmmlab.accumulation import micro_batches


def test_parts_keep_images_and_samples_together_and_in_order() -> None:
    batch = {"inputs": [0, 1, 2, 3], "data_samples": ["a", "b", "c", "d"]}
    assert micro_batches(batch, 2) == [
        {"inputs": [0, 1], "data_samples": ["a", "b"]},
        {"inputs": [2, 3], "data_samples": ["c", "d"]},
    ]


def test_unequal_parts_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="3 images"):
        micro_batches({"inputs": [0, 1, 2], "data_samples": ["a", "b", "c"]}, 2)
