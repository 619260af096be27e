"""Whole runs that are monitored compute what they compute without, and leave plots and curves."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretrain.__main__ import main
from pretrain.config import WatchConfig
from pretrain.monitoring.monitor import panels
from pretrain.run import pretrain
from tests.conftest import RunMain
from tests.pretrain.conftest import logged, tiny_config, tiny_options, weights
from tests.pretrain.test_world_sizes import launch, run_of

WATCHED = {"watch__every": 1, "watch__num_images": 1}


@pytest.mark.parametrize("method", ["selfpatch", "moby", "patch_matching"])
def test_watching_changes_nothing_of_what_is_trained(image_folder: Path, tmp_path: Path, method: str) -> None:
    """Weights and running state; stochastic depth draws random numbers in every step."""
    knn = {"watch__knn_train": image_folder, "watch__knn_val": image_folder}
    for name, watch in (("off", {}), ("on", {**WATCHED, **knn})):
        pretrain(tiny_config(method, image_folder, tmp_path / name, backbone__drop_path_rate=0.3, optim__lr=0.002, **watch))
    off, on = (weights(tmp_path / name) for name in ("off", "on"))
    assert off.keys() == on.keys()
    assert all(torch.equal(off[name], on[name]) for name in off)
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
    assert sorted(path.name for path in (tmp_path / "watch").iterdir()) == [
        "curves.png", "epoch_0002", "epoch_0004", "epoch_0005",
    ]  # fmt: skip


def test_a_damaged_image_to_classify_is_found_before_training(image_folder: Path, tmp_path: Path, run_main: RunMain) -> None:
    val = shutil.copytree(image_folder, tmp_path / "val")
    path = next(val.rglob("*.jpg"))
    path.write_bytes(path.read_bytes()[:300])
    watch = {**WATCHED, "watch__knn_train": image_folder, "watch__knn_val": val}
    finished = run_main(main, ["sample_dino", *tiny_options(image_folder, tmp_path / "run", "dino", **watch)])
    assert f"watch.knn_val: cannot read {path}" in finished.mistake()
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_plots_that_cannot_be_written_cost_no_training(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.joinpath("watch").write_text("a file where the folder would be")
    with caplog.at_level(logging.ERROR):
        assert pretrain(tiny_config("dino", image_folder, tmp_path, **WATCHED)).is_file()
    assert "no plots of epoch 1" in caplog.text
    assert "no curves at epoch 2" in caplog.text


@pytest.mark.slow
def test_two_processes_watch_as_one(image_folder: Path, tmp_path: Path) -> None:
    """With an odd number of images to classify, so that shares differ; and a damaged one is every process's mistake."""
    val, damaged = tmp_path / "val", tmp_path / "damaged"
    shutil.copytree(image_folder, val)
    next((val / "class1").iterdir()).unlink()
    shutil.copytree(val, damaged)
    sorted(damaged.rglob("*.jpg"))[1].write_bytes(b"no image")
    options = {**WATCHED, "watch__knn_train": image_folder, "optim__lr": 0.001}
    assert main(run_of(image_folder, tmp_path / "1", "dino", **options, watch__knn_val=val)) == 0
    runs = [
        run_of(image_folder, tmp_path / name, "dino", **options, watch__knn_val=folder)
        for name, folder in (("2", val), ("refused", damaged))
    ]
    finished = launch(2, runs, tmp_path)
    assert finished.returncode == 2, finished.stderr
    alone, together = logged(tmp_path / "1"), logged(tmp_path / "2")
    assert [line.get("knn_top1") for line in alone] == [line.get("knn_top1") for line in together]
    assert "knn_top1" in together[-1]
    assert len(list((tmp_path / "2" / "watch" / "epoch_0002").iterdir())) == 2
    errors = {line for line in finished.stderr.splitlines() if line.startswith("error")}
    assert len(errors) == 1
    assert f"watch.knn_val: cannot read {damaged}" in errors.pop()


def test_panels_of_what_there_is() -> None:
    dino = {"step", "epoch", "loss", "cls_entropy_part", "cls_batch_entropy_part", "cls_centre_norm", "lr", "weight_decay"}
    titles = [panel.title for panel in panels(dino)]
    assert titles == ["loss", "entropy of targets\n(part of log K)", "length of the centre", "learning rate"]
    moby = {"loss", "cls_loss", "patch_loss", "cls_deviation", "patch_similarity", "knn_top1", "lr"}
    assert [panel.names for panel in panels(moby)] == [
        ["loss"], ["cls_loss", "patch_loss"], ["cls_deviation", "patch_similarity"], ["knn_top1"], ["lr"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"every": -1}, r"watch\.every=-1"),
        ({"num_images": 0}, r"watch\.num_images=0"),
        ({"knn_train": Path("a")}, "come together"),
        ({"knn_val": Path("a")}, "come together"),
        ({"every": 0, "images": Path("a")}, r"watch\.images has no effect"),
        ({"every": 0, "knn_train": Path("a"), "knn_val": Path("b")}, r"watch\.knn_train has no effect"),
    ],
)
def test_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WatchConfig(**values)
