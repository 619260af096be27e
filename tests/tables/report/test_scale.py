import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tables.report.scale import round_scale


@pytest.mark.parametrize(
    ("values", "options", "labels"),
    [
        ([3.0, 97.0], {}, ["0", "20", "40", "60", "80", "100"]),
        ([3.0, 100.0], {"highest": 100}, ["0", "20", "40", "60", "80", "100"]),
        ([0.0], {}, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([], {}, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([0.1, 0.3, math.nan], {}, ["0", "0.1", "0.2", "0.3"]),
        ([5e-5], {}, ["0", "1e-05", "2e-05", "3e-05", "4e-05", "5e-05"]),
        ([-12.0, 40.0], {}, ["-20", "0", "20", "40"]),
        ([45.0, 47.0], {"zero": False}, ["45", "45.5", "46", "46.5", "47"]),
    ],
)
def test_ticks_are_round(values: list[float], options: dict[str, float], labels: list[str]) -> None:
    assert [label for _, label in round_scale(values, 0, 100, **options).ticks] == labels  # type: ignore[arg-type]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.booleans())
def test_every_value_has_a_place_between_the_ends(values: list[float], zero: bool) -> None:
    scale = round_scale(values, 20, 320, zero=zero)
    assert all(20 <= scale.place(value) <= 320 for value in values)
    assert len(scale.ticks) <= 9


def test_an_upright_axis_runs_downwards() -> None:
    scale = round_scale([0.0, 10.0], 130, 10)
    assert scale.place(0) == 130
    assert scale.place(10) == 10
