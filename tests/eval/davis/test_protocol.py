import pytest

from eval.davis.protocol import PropagationSettings, deviations, propagation_settings


def test_the_defaults_are_the_published_protocol() -> None:
    settings = propagation_settings(PropagationSettings())
    assert settings == {
        "protocol": "published",
        "n_last_frames": 7,
        "neighbourhood_radius": 12,
        "topk": 5,
        "temperature": 0.1,
        "short_side": 480,
        "block": None,
        "std": (0.228, 0.224, 0.225),
        "long_side_multiple": 64,
        "drop_highest_id": True,
    }
    assert deviations(PropagationSettings()) == {}


def test_deviations_name_both_values() -> None:
    assert deviations(PropagationSettings(topk=7)) == {"topk": [5, 7]}


@pytest.mark.parametrize("wrong", [{"topk": 0}, {"n_last_frames": -1}, {"short_side": 63}, {"temperature": 0.0}, {"block": -1}])
def test_impossible_settings(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PropagationSettings(**wrong)
