from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backbones.spec import ViTSpec
from eval.classification.config import ClassificationConfig
from eval.classification.protocol import choose_representation, protocol_of
from tests.eval.classification.conftest import SPEC, Configure
from tests.eval.classification.test_features import RESNET, SWIN

SMALL = ViTSpec(embed_dim=384, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=True, final_norm=True)
BASE = replace(SMALL, embed_dim=768, num_heads=12)
WITHOUT_CLS = replace(SMALL, class_token=False, final_norm=False)
PATHS = {"backbone": Path("b"), "data": Path("d"), "output": Path("o")}


@pytest.mark.parametrize("spec", [SMALL, BASE, WITHOUT_CLS], ids=["small", "base", "without cls"])
def test_the_defaults_are_the_published_protocol(spec: ViTSpec) -> None:
    protocol = protocol_of(ClassificationConfig(**PATHS), spec)
    assert protocol.deviations == {}
    # Facts of DINO's scripts at 7c446df, see the modules' sources.
    expected = {"resize": 256, "crop": 224, "neighbours": [10, 20, 100, 200], "temperature": 0.07}
    expected |= {"learning_rates": [0.001], "epochs": 100, "batch_size": 1024}
    assert {name: protocol.settings[name] for name in expected} == expected


CROPS = "random resized crop and flip in every epoch"


@pytest.mark.parametrize(
    ("spec", "options", "deviations"),
    [
        (SMALL, {"neighbours": [1, 20], "learning_rates": [0.001, 0.01]}, {}),  # more metrics
        (SMALL, {"classifiers": ["knn"], "augment": False, "epochs": 3}, {}),  # the probe does not run
        (SMALL, {"classifiers": ["linear"], "temperature": 1.0}, {}),
        (replace(SPEC, depth=2), {}, {"linear_blocks": [4, 2]}),
        (SMALL, {"resize": 248, "crop": 240}, {"resize": [256, 248], "crop": [224, 240]}),
        (SMALL, {"temperature": 0.1}, {"temperature": [0.07, 0.1]}),
        (SMALL, {"epochs": 10, "batch_size": 512}, {"epochs": [100, 10], "batch_size": [1024, 512]}),
        (
            SMALL,
            {"learning_rates": [0.01, 0.001], "linear_blocks": 1, "linear_mean_patch": True},
            {"learning_rate": [0.001, 0.01], "linear_blocks": [4, 1], "linear_mean_patch": [False, True]},
        ),
        (SMALL, {"augment": False}, {"training_images": [CROPS, "features of centre crops, extracted once"]}),
    ],
)
def test_what_changes_a_metric_is_a_deviation(spec: ViTSpec, options: dict[str, Any], deviations: dict[str, Any]) -> None:
    config = ClassificationConfig(**PATHS, **options)
    protocol = protocol_of(config, spec)
    assert protocol.deviations == deviations
    # Only what runs is recorded.
    assert ("epochs" in protocol.settings, "linear_features" in protocol.settings) == ("linear" in config.classifiers,) * 2
    assert ("temperature" in protocol.settings, "knn_features" in protocol.settings) == ("knn" in config.classifiers,) * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": 20}, "resize=20 is smaller than crop=32"),
        ({"temperature": 0.0}, "temperature=0.0 must be positive"),
        ({"neighbours": []}, "must name at least one value"),
        ({"neighbours": [5, 5]}, "none twice"),
        ({"neighbours": [0]}, "must be at least 1"),
        ({"learning_rates": [-1.0]}, "must be positive"),
        ({"linear_blocks": 0}, "must be at least 1"),
        ({"seed": 2**32}, "seed=4294967296 must be at most"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"test_folder": "train"}, "each image would find itself"),
    ],
)
def test_values_that_make_no_run(configure: Configure, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(**changes)


def test_what_a_backbone_does_not_have() -> None:
    with pytest.raises(ValueError, match="only a ViT's blocks"):
        choose_representation(SWIN, 2, None)
    with pytest.raises(ValueError, match="no CLS token"):
        choose_representation(RESNET, None, True)
