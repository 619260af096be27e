from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from backbones.build import AnyBackbone, build_backbone
from backbones.spec import ViTSpec
from pretrain.data.views import read_image
from pretrain.watching.online_knn import OnlineKNN
from pretrain.watching.photographs import centre_crop, network_input

SIZE = 32
COLOURS = {"blue": (30, 40, 220), "green": (40, 200, 30), "red": (220, 30, 40)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Classes that differ in colour; five neighbours and two images to classify of each."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for name, colour in COLOURS.items():
            for index in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 25, (40, 50, 3)), 0, 255).astype(np.uint8)
                (root / split / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root / "train", root / "val"


def network(class_token: bool) -> AnyBackbone:
    torch.manual_seed(0)
    return build_backbone(
        ViTSpec(
            embed_dim=16, depth=1, num_heads=2, patch_size=8, image_size=SIZE, class_token=class_token, final_norm=class_token
        )
    )


def feature(backbone: AnyBackbone, path: Path) -> torch.Tensor:
    image = network_input(centre_crop(read_image(path), 37, SIZE))
    tokens = backbone.forward_tokens(image[None])
    return F.normalize((tokens.patches.mean(1) if tokens.cls is None else tokens.cls)[0].double(), dim=0)


@pytest.mark.parametrize("class_token", [True, False])
@torch.no_grad()
def test_equals_the_published_rule_image_by_image(folders: tuple[Path, Path], class_token: bool) -> None:
    """DINO's: the k most similar neighbours vote with exp(cosine / 0.07); of 15 neighbours all vote, 20 being wanted."""
    train, val = folders
    backbone = network(class_token).eval()
    neighbours = [(path.parent.name, feature(backbone, path)) for path in sorted(train.rglob("*.png"))]
    hits = []
    for path in sorted(val.rglob("*.png")):
        query = feature(backbone, path)
        votes = dict.fromkeys(COLOURS, 0.0)
        for name, row in neighbours:
            votes[name] += float(((row @ query) / 0.07).exp())
        hits.append(max(votes, key=lambda name: votes[name]) == path.parent.name)
    knn = OnlineKNN(train, val, SIZE, workers=2, device=torch.device("cpu"))
    assert knn.accuracy(backbone) == pytest.approx(100 * np.mean(hits))


def test_the_network_stays_as_it_is(folders: tuple[Path, Path]) -> None:
    backbone = network(True)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    accuracy = OnlineKNN(*folders, SIZE, workers=0, device=torch.device("cpu")).accuracy(backbone)
    assert accuracy is not None
    assert accuracy > 34, "colours are told apart by a random network"
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_an_image_that_is_lost_while_training_costs_the_figure_and_nothing_else(
    folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, val = folders
    for path in val.rglob("*.png"):
        copy = tmp_path / path.relative_to(val)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    knn = OnlineKNN(train, tmp_path, SIZE, workers=1, device=torch.device("cpu"))
    knn.check()
    next((tmp_path / "red").iterdir()).unlink()
    assert knn.accuracy(network(True)) is None
    assert "no k-NN this time" in caplog.text
    assert "red" in caplog.text
