import pytest
from mmengine.config import Config

from eval.openmmlab.config_values import apply_override, lookup, plain


@pytest.fixture
def config() -> Config:
    return Config({"model": {"strides": [4, 8], "name": "x", "size": (1, 2)}})


def test_lookup(config: Config) -> None:
    assert lookup(config, "model.strides.1") == 8
    for path in ("model.absent", "absent", "model.name.more", "model.strides.more"):
        with pytest.raises(LookupError):
            lookup(config, path)


def test_override_replaces_what_is_there(config: Config) -> None:
    for override in ("model.strides.0=16", "model.name=null", "model.size=[3, 4]"):
        apply_override(config, override)
    assert config.to_dict() == {"model": {"strides": [16, 8], "name": None, "size": (3, 4)}}


def test_override_keeps_the_types_that_mmcv_insists_on() -> None:
    config = Config({"scales": [(1333, 480), (1333, 800)], "size": (1, 2), "probability": 0.5, "count": 1})
    for override in ("scales=[[427, 256]]", "size=[3, 4]", "probability=0", "count=2"):
        apply_override(config, override)
    assert config.to_dict() == {"scales": [(427, 256)], "size": (3, 4), "probability": 0.0, "count": 2}
    assert isinstance(config.probability, float)
    assert isinstance(config.count, int)


@pytest.mark.parametrize("override", ["model.absent=1", "model.name", "model.name=[", "model.size.0=3", "model.strides.2=1"])
def test_override_of_nothing_is_an_error(config: Config, override: str) -> None:
    with pytest.raises(ValueError, match="wanted key=value"):
        apply_override(config, override)


def test_plain_values_equal_what_json_gives_back() -> None:
    assert plain({"a": (1, {"b": (2.5, None)})}) == {"a": [1, {"b": [2.5, None]}]}


def test_a_number_without_a_dot_stays_a_number(config: Config) -> None:
    """YAML 1.1 reads 1e-3 as a string, which crashed the scheduler minutes later."""
    apply_override(config, "model.strides.0=1e-3")
    assert config.model.strides[0] == 1e-3
    with pytest.raises(ValueError, match="is a number"):
        apply_override(config, "model.strides.0=fast")
