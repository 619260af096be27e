"""The online k-NN is the published rule, image by image; and labelled folders with mistakes are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from backbones.build import AnyBackbone, build_backbone
from backbones.spec import ViTSpec
from pretrain.monitoring.monitor import OnlineKNN
from pretrain.monitoring.plots import centre_crop, network_input
from tests.pretrain.conftest import tiny_config

SIZE = 32
COLOURS = {"blue": (30, 40, 220), "green": (40, 200, 30), "red": (220, 30, 40)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Classes that differ in colour; one, five and nine neighbours, and two images to classify of each."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for split, counts in (("train", (1, 5, 9)), ("val", (2, 2, 2))):
        for (name, colour), count in zip(COLOURS.items(), counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 25, (40, 50, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root / "train", root / "val"


def network(has_cls: bool) -> AnyBackbone:
    torch.manual_seed(0)
    spec = ViTSpec(embed_dim=16, depth=1, num_heads=2, patch_size=8, image_size=SIZE, class_token=has_cls, final_norm=has_cls)
    return build_backbone(spec)


def online_knn(train: Path, val: Path, workers: int) -> OnlineKNN:
    options = {"watch__every": 1, "watch__knn_train": train, "watch__knn_val": val, "data__workers": workers}
    return OnlineKNN(tiny_config("dino", views__global_size=SIZE, **options), torch.device("cpu"))


@pytest.mark.parametrize("has_cls", [True, False])
@torch.no_grad()
def test_equals_the_published_rule_image_by_image(folders: tuple[Path, Path], has_cls: bool) -> None:
    """DINO's: the k most similar neighbours vote with exp(cosine / 0.07); of 15 neighbours all vote, 20 being wanted."""
    backbone = network(has_cls).eval()

    def features(folder: Path) -> list[tuple[str, torch.Tensor]]:
        found = []
        for path in sorted(folder.rglob("*.png")):
            tokens = backbone.forward_tokens(network_input(centre_crop(Image.open(path), 37, SIZE))[None])
            feature = (tokens.patches.mean(1) if tokens.cls is None else tokens.cls)[0]
            found.append((path.parent.name, F.normalize(feature.double(), dim=0)))
        return found

    neighbours, hits = features(folders[0]), []
    for truth, query in features(folders[1]):
        votes = dict.fromkeys(COLOURS, 0.0)
        for name, row in neighbours:
            votes[name] += float(((row @ query) / 0.07).exp())
        hits.append(max(votes, key=lambda name: votes[name]) == truth)
    assert online_knn(*folders, workers=2).accuracy(backbone) == pytest.approx(100 * np.mean(hits))


def test_an_image_that_is_lost_while_training_costs_the_metric_and_nothing_else(
    folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    val = shutil.copytree(folders[1], tmp_path / "val")
    knn = online_knn(folders[0], val, workers=1)
    accuracy = knn.accuracy(network(True))
    assert accuracy is not None
    assert accuracy > 34, "colours are told apart by a random network"
    next((val / "red").iterdir()).unlink()
    assert knn.accuracy(network(True)) is None
    assert "no k-NN this time" in caplog.text
    assert "red" in caplog.text


def test_labels_follow_the_names_of_the_neighbours_classes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """A class of images to classify may be absent; they may lie deeper."""
    deeper = shutil.copytree(folders[1] / "red", tmp_path / "val" / "red" / "deeper").parent.parent
    knn = online_knn(folders[0], deeper, workers=1)
    assert knn.accuracy(network(True)) == 100


def test_mistakes_name_option_and_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "red").mkdir(parents=True)
    one = shutil.copytree(folders[0] / "red", tmp_path / "one" / "red").parent
    for train, val, message in (
        (Path("/nowhere"), folders[1], r"watch\.knn_train: .*'/nowhere'; give a folder with a folder of images per class"),
        (folders[0], folders[1] / "red", "give a folder with a folder of images per class"),
        (folders[0], empty, r"watch\.knn_val: Found no valid file for the classes red"),
        (one, folders[1], "2 classes of which there are no neighbours, such as blue"),
    ):
        with pytest.raises(ValueError, match=message):
            online_knn(train, val, workers=1)
