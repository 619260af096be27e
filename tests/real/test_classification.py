"""Real labelled images: a subset of CIFAR-10, and ImageNet photographs grouped into kinds of things."""

from pathlib import Path

import pytest

from backbones.spec import ViTSpec
from eval.classification.config import ClassificationConfig
from eval.classification.task import evaluate
from tests.toy import write_toy_backbone

pytestmark = pytest.mark.data

# Random weights keep colours and coarse shapes apart.
SPEC = ViTSpec(embed_dim=64, depth=4, num_heads=2, patch_size=16, image_size=224, class_token=True, final_norm=True)

# Places of ImageNet's classes in their sorted order.
KINDS = {"bird": (7, 25), "dog": (151, 269), "food": (924, 970), "reptile": (25, 69)}


def test_cifar_beats_chance(real_data_dir: Path, tmp_path: Path) -> None:
    result = evaluate(
        ClassificationConfig(
            backbone=write_toy_backbone(tmp_path, SPEC),
            data=real_data_dir / "cifar-10-batches-bin",
            output=tmp_path / "out",
            classifiers=["knn"],
            device="cpu",
            workers=0,
        )
    )
    assert (result.protocol.deviations, result.coverage) == ({}, "subset")
    assert result.datasets["test"].name == "CIFAR-10"
    assert set(result.breakdown) >= {"airplane", "truck"}
    for k in (10, 20, 100, 200):
        assert result.metrics[f"{k}-NN top-1"].interval_95[0] > 10
        assert result.metrics[f"{k}-NN top-5"].interval_95[0] > 50


def test_photographs_beat_chance(real_data_dir: Path, tmp_path: Path) -> None:
    classes = sorted(path for path in (real_data_dir / "photos").iterdir() if path.is_dir())
    for kind, (first, last) in KINDS.items():
        for number, folder in enumerate(classes[first:last][:44]):
            target = tmp_path / "data" / ("val" if number % 2 else "train") / kind
            target.mkdir(parents=True, exist_ok=True)
            for image in folder.iterdir():
                (target / image.name).symlink_to(image)
    result = evaluate(
        ClassificationConfig(
            backbone=write_toy_backbone(tmp_path, SPEC),
            data=tmp_path / "data",
            output=tmp_path / "out",
            classifiers=["linear"],
            learning_rates=[0.1],
            batch_size=64,
            epochs=30,
            augment=False,
            device="cpu",
            workers=0,
        )
    )
    assert set(result.protocol.deviations) == {"learning_rate", "batch_size", "epochs", "training_images"}
    assert result.metrics["linear top-1"].interval_95[0] > 25
