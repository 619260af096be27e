"""Runs that are monitored compute what they compute without, and leave plots and curves; k-NN is the published rule."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from backbones.build import AnyBackbone, build_backbone
from backbones.spec import ViTSpec
from pretrain.__main__ import main
from pretrain.monitoring.monitor import OnlineKNN, images_by_class
from pretrain.monitoring.plots import centre_crop, network_input
from pretrain.run import pretrain
from tests.pretrain.conftest import assert_equal, logged, tiny_config, weights
from tests.pretrain.test_world_sizes import run_of, train_each
from tests.processes import run_group

WATCHED = {"watch__every": 1, "watch__num_images": 1}
SIZE = 32
COLOURS = {"blue": (30, 40, 220), "green": (40, 200, 30), "red": (220, 30, 40)}


@pytest.mark.parametrize("method", ["selfpatch", "moby", "patch_matching"])
def test_watching_changes_nothing_of_what_is_trained(image_folder: Path, tmp_path: Path, method: str) -> None:
    """Weights and running state; stochastic depth draws random numbers in every step."""
    knn = {"watch__knn_train": image_folder, "watch__knn_val": shutil.copytree(image_folder, tmp_path / "val")}
    for name, watch in (("off", {}), ("on", {**WATCHED, **knn})):
        pretrain(tiny_config(method, image_folder, tmp_path / name, backbone__drop_path_rate=0.3, optim__lr=0.002, **watch))
    assert_equal(weights(tmp_path / "on"), weights(tmp_path / "off"))
    own = {"selfpatch": {"positives"}, "patch_matching": {"matches"}}.get(method, set())
    for epoch in ("epoch_0001", "epoch_0002"):
        plots = {path.stem for path in (tmp_path / "on" / "watch" / epoch).iterdir()}
        assert plots == {"attention", "components", *own}
    assert (tmp_path / "on" / "watch" / "curves.png").is_file()
    assert not (tmp_path / "off" / "watch").exists()
    lines = logged(tmp_path / "on")
    assert [line["step"] for line in lines if 0 <= line.get("knn_top1", -1) <= 100] == [3, 6]
    assert [{**line, "knn_top1": None} for line in lines] == [{**line, "knn_top1": None} for line in logged(tmp_path / "off")]
    board = EventAccumulator(str(tmp_path / "on" / "tensorboard")).Reload()
    assert set(board.Tags()["images"]) == {f"watch/{name}" for name in plots}
    assert "knn_top1" in board.Tags()["scalars"]


def test_every_few_epochs_and_after_the_last(image_folder: Path, tmp_path: Path) -> None:
    options = {"train__epochs": 5, "watch__every": 2, "watch__num_images": 1, "watch__images": image_folder}
    pretrain(tiny_config("dino", image_folder, tmp_path, **options))
    found = sorted(path.name for path in (tmp_path / "watch").iterdir())
    assert found == ["curves.png", "epoch_0002", "epoch_0004", "epoch_0005"]


def test_plots_that_cannot_be_written_cost_no_training(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.joinpath("watch").write_text("a file where the folder would be")
    with caplog.at_level(logging.ERROR):
        assert pretrain(tiny_config("dino", image_folder, tmp_path, **WATCHED)).is_file()
    assert "no plots of epoch 1" in caplog.text
    assert "no curves at epoch 2" in caplog.text


def test_two_processes_watch_as_one(image_folder: Path, tmp_path: Path) -> None:
    """With an odd number of images to classify, so that shares differ; and a damaged one is every process's mistake."""
    val, damaged = tmp_path / "val", tmp_path / "damaged"
    shutil.copytree(image_folder, val)
    next((val / "class1").iterdir()).unlink()
    shutil.copytree(val, damaged)
    sorted(damaged.rglob("*.jpg"))[1].write_bytes(b"no image")
    options = {**WATCHED, "watch__knn_train": image_folder, "optim__lr": 0.001}
    assert main(run_of(image_folder, tmp_path / "1", "dino", **options, watch__knn_val=val)) == 0
    folders = {"2": val, "refused": damaged}
    runs = [run_of(image_folder, tmp_path / name, "dino", **options, watch__knn_val=folders[name]) for name in folders]
    ended, messages = run_group(2, tmp_path, train_each, runs)
    assert ended == [2, 2], messages
    alone, together = logged(tmp_path / "1"), logged(tmp_path / "2")
    assert [line.get("knn_top1") for line in alone] == [line.get("knn_top1") for line in together]
    assert "knn_top1" in together[-1]
    assert len(list((tmp_path / "2" / "watch" / "epoch_0002").iterdir())) == 2
    (error,) = {line for line in messages.splitlines() if line.startswith("error")}
    assert f"watch.knn_val: cannot read {damaged}" in error
    assert not (tmp_path / "refused" / "log.jsonl").exists()


# k-NN.


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
    assert knn.accuracy(network(True)) is not None
    next((val / "red").iterdir()).unlink()
    assert knn.accuracy(network(True)) is None
    assert "no k-NN this time" in caplog.text


def test_labels_follow_the_names_of_the_neighbours_classes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """A class of images to classify may be absent; they may lie deeper."""
    deeper = shutil.copytree(folders[1] / "red", tmp_path / "val" / "red" / "deeper").parent.parent
    knn = online_knn(folders[0], deeper, workers=1)
    assert knn.accuracy(network(True)) == 100


def test_hidden_folders_are_no_classes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    train = shutil.copytree(folders[0], tmp_path / "train")
    for hidden in (".ipynb_checkpoints", "__MACOSX", "red/.ipynb_checkpoints"):
        shutil.copytree(train / "green", train / hidden)
    found = images_by_class(train, "option")
    assert {name: len(paths) for name, paths in found.items()} == {"blue": 1, "green": 5, "red": 9}
    (train / "white").mkdir()
    with pytest.raises(ValueError, match=r"option: .*white holds no image"):
        images_by_class(train, "option")


@pytest.mark.parametrize("linked", ["folder", "class", "image", "hard link"])
def test_no_image_is_its_own_neighbour(folders: tuple[Path, Path], tmp_path: Path, linked: str) -> None:
    """Whatever of the neighbours is linked among the images to classify."""
    train, val = folders[0], tmp_path / "val"
    image = min((train / "red").iterdir())
    if linked == "folder":
        (tmp_path / "other").symlink_to(train)
        val.symlink_to(tmp_path / "other")
    elif linked == "class":
        val.mkdir()
        (val / "red").symlink_to(train / "red")
    else:
        (val / "red").mkdir(parents=True)
        place = val / "red" / image.name
        place.hardlink_to(image) if linked == "hard link" else place.symlink_to(image)
    with pytest.raises(ValueError, match=r"watch\.knn_val: .* own neighbour"):
        online_knn(train, val, workers=1)


def test_mistakes_name_option_and_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "red").mkdir(parents=True)
    one = shutil.copytree(folders[0] / "red", tmp_path / "one" / "red").parent
    for train, val, message in (
        (Path("/nowhere"), folders[1], r"watch\.knn_train: /nowhere is not a folder"),
        (folders[0], folders[1] / "red", "give a folder with a folder of images per class"),
        (folders[0], empty, r"watch\.knn_val: no image under .*empty"),
        (one, folders[1], "2 classes of which there are no neighbours, such as blue"),
    ):
        with pytest.raises(ValueError, match=message):
            online_knn(train, val, workers=1)
