import pytest

from eval.openmmlab.batch import BatchPlan


@pytest.mark.parametrize(("per_device", "world_size", "accumulation"), [(1, 1, 8), (8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_accumulation_makes_up_the_total(per_device: int, world_size: int, accumulation: int) -> None:
    assert BatchPlan(total=8, per_device=per_device, world_size=world_size).accumulation == accumulation


def test_a_split_that_misses_the_total_is_refused() -> None:
    with pytest.raises(ValueError, match="8 images cannot be split into 3 process"):
        BatchPlan(total=8, per_device=1, world_size=3)
