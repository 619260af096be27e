"""Real labelled images: a subset of CIFAR-10."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.build import AnyBackbone
from backbones.convert import open_backbone, write_conversion
from backbones.file import load_backbone
from eval.classification.config import ClassificationConfig
from eval.classification.task import evaluate
from pretrain.config import parse_run
from pretrain.run import pretrain
from tests.common.test_knn import published_ranks

pytestmark = pytest.mark.data


@torch.inference_mode()
def cls_features(network: AnyBackbone, pictures: np.ndarray, side: int) -> np.ndarray:
    """The CLS tokens of uint8 [N, 32, 32, 3] pictures, resized by Pillow."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    resized = [Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
    images = torch.from_numpy((np.stack(resized) / 255 - mean) / std).float().permute(0, 3, 1, 2)
    return torch.cat([network.forward_tokens(batch).cls for batch in images.split(100)]).double().numpy()


@pytest.mark.slow
def test_a_backbone_pretrained_on_cifar_beats_chance_and_equals_the_published_classifier(
    real_data_dir: Path, tmp_path: Path
) -> None:
    """Twenty updates of DINO on unlabelled CIFAR-10 pictures, then both classifiers; k-NN a second time from the files' bytes."""
    root, side = real_data_dir / "cifar-10-batches-bin", 48
    records = {
        split: np.frombuffer(b"".join(path.read_bytes() for path in sorted(root.glob(pattern))), np.uint8).reshape(-1, 3073)
        for split, pattern in (("train", "data_batch_*.bin"), ("test", "test_batch.bin"))
    }
    labels = {split: rows[:, 0].astype(int) for split, rows in records.items()}
    pictures = {split: rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for split, rows in records.items()}
    for number, picture in enumerate(pictures["train"][::2]):
        path = tmp_path / "images" / f"{number:05d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    options = {
        **{"data.path": tmp_path / "images", "data.workers": 0, "train.output": tmp_path / "run", "train.device": "cpu"},
        **{"train.epochs": 2, "train.batch_size": 50, "optim.lr": 0.002},
        **{"views.global_size": side, "views.local_size": side // 2, "views.local_crops": 2},
        **{"backbone.embed_dim": 96, "backbone.depth": 3, "backbone.patch_size": 8},
    }
    checkpoint = pretrain(parse_run(["sample_dino", *(f"--{name}={value}" for name, value in options.items())]))
    backbone = tmp_path / "pretrained.safetensors"
    write_conversion(open_backbone(checkpoint), checkpoint, backbone)
    fixed: dict[str, Any] = {"backbone": backbone, "data": root, "output": tmp_path / "out", "device": "cpu", "workers": 0}
    linear: dict[str, Any] = {"learning_rates": [0.1], "batch_size": 64, "epochs": 30, "augment": False}
    result = evaluate(ClassificationConfig(**fixed, **linear, resize=side, crop=side))
    changed = {"resize", "crop", "learning_rate", "batch_size", "epochs", "training_images", "linear_blocks"}
    assert set(result.protocol.deviations) == changed
    assert result.metrics["linear top-1"].interval_95[0] > 10, "chance is one class in ten"
    assert (result.datasets["test"].name, result.coverage) == ("CIFAR-10", "subset")
    assert set(result.breakdown) >= {"airplane", "truck"}
    network = load_backbone(backbone)
    features = {split: cls_features(network, pictures[split], side) for split in pictures}
    for k in (10, 20, 100, 200):
        ranks = published_ranks(features["train"], labels["train"], features["test"], labels["test"], k, 10)
        with (tmp_path / "out" / "predictions.csv").open() as stream:
            assert [int(row[f"{k}-NN rank"]) for row in csv.DictReader(stream)] == ranks
        top1 = result.metrics[f"{k}-NN top-1"]
        assert top1.value == 100 * sum(rank == 0 for rank in ranks) / len(ranks)
        assert top1.interval_95[0] > 10
