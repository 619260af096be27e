import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backbones.file import read_backbone_file
from common.files import lock_folder
from eval.__main__ import main
from eval.classification.items import read_items
from eval.classification.task import accuracy, check, evaluate, metrics_of
from eval.result import ResultError, read_result
from tests.architectures import ANY, FUNCTIONS, backbone_of
from tests.conftest import Finished, RunMain
from tests.eval.classification.conftest import TEST_IMAGES, Configure
from tests.eval.conftest import names_of_items
from tests.processes import evaluate_in_two


@pytest.fixture
def run(images: Path, backbone_file: Path, tmp_path: Path, run_main: RunMain) -> Callable[..., Finished]:
    given = ("--backbone", backbone_file, "--data", images, "--output", tmp_path / "out", "--workers", 0, "--device", "cpu")
    return lambda *more: run_main(main, ["classification", *given, *more])


def test_the_command_from_backbone_to_result(images: Path, tmp_path: Path, run: Callable[..., Finished]) -> None:
    output = tmp_path / "out"
    shutil.copy(images / "val/red/1.png", images / "val/blue/0.png")  # colours show through random weights: one mistake
    training = ("--resize", 36, "--crop", 32, "--epochs", 3, "--batch-size", 8)
    finished = run("--name", "tiny", *training, "--neighbours", 1, 5, "--learning-rates", 0.1, 1.0)
    assert (finished.status, finished.stderr) == (0, "")
    assert "1-NN top-1" in finished.stdout
    result = read_result(output / "result.json")
    names = ["1-NN top-1", "5-NN top-1", "linear top-1", "linear (rate 1) top-1", "linear top-1, best epoch"]
    assert list(result.metrics) == names
    assert result.metrics["5-NN top-1"].value == pytest.approx(100 * 14 / 15)
    image_names = names_of_items(result, output, names[:4])
    assert (len(image_names), image_names[0]) == (3 * TEST_IMAGES, "blue/0.png")
    for name in names[:4]:
        metric = result.metrics[name]
        assert metric.interval_95[0] <= metric.value <= metric.interval_95[1]
        assert np.mean([accuracies[name] for accuracies in result.breakdown.values()]) == pytest.approx(metric.value)
    assert result.backbone.name == "tiny"
    assert (result.datasets["train"].num_items, result.datasets["test"].num_items, result.coverage) == (27, 15, "subset")
    assert result.protocol.settings["linear_features"] == "CLS token, last 4 blocks concatenated"
    assert all((output / path).is_file() for path in result.artefacts.values())
    assert json.loads((output / "config.json").read_text())["crop"] == 32
    # Those of both classifiers for the test images; of the training images k-NN's only, since the probe augments them.
    assert len(list((output / "features").iterdir())) == 3


@pytest.mark.parametrize("augment", [True, pytest.param(False, marks=pytest.mark.long)])
def test_two_processes_give_what_one_gives(configure: Configure, tmp_path: Path, augment: bool) -> None:
    changes = {"augment": augment, "learning_rates": [0.1, 1.0], "batch_size": 13}
    alone = evaluate(configure(output=tmp_path / "one", **changes))
    two = configure(output=tmp_path / "two", **changes)
    evaluate_in_two("eval.classification.task", two, tmp_path / "processes")
    together = read_result(tmp_path / "two/result.json")
    assert together.metrics == alone.metrics
    assert (tmp_path / "two/predictions.csv").read_bytes() == (tmp_path / "one/predictions.csv").read_bytes()
    assert together.inputs_sha256 == alone.inputs_sha256
    assert together.environment.world_size == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--backbone none", "no such file; make it with"),
        ("--data none", "no such folder; --data is the folder"),
        ("--crop 32", "27 training images; leave the larger numbers out"),
        ("--crop 30", "crop=30 is not a multiple of the backbone's patch size 8"),
        ("--linear-blocks 9", "this backbone has 5 blocks"),
        ("--classifiers svm", "svm"),
    ],
)
def test_mistakes_are_one_line(options: str, message: str, tmp_path: Path, run: Callable[..., Finished]) -> None:
    assert message in run(*options.split()).mistake()
    assert not (tmp_path / "out").exists()


def test_damage_is_found_before_anything_is_extracted(configure: Configure) -> None:
    config = configure(classifiers=["knn"])
    path = min(config.data.glob("val/*/*"))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"files are empty \(0 bytes\): val/blue/0\.png"):
        evaluate(config)
    with pytest.raises(ValueError, match=r"files are empty \(0 bytes\): val/blue/0\.png"):
        check(config, read_backbone_file(config.backbone).spec)
    assert not (config.output / "features").exists()


def test_a_finished_task_is_not_run_again_and_its_items_are_read(configure: Configure) -> None:
    config = configure(classifiers=["knn"])
    result = evaluate(config)
    assert evaluate(config) == result, "which holds the time that the first run took"
    with pytest.raises(ResultError, match="made from other inputs"):
        evaluate(replace(config, temperature=0.1))
    assert read_items(replace(result, artefacts={}), config.output) is None
    lines = ["image,class,a rank", *(f"{rank},red,{rank}" for rank in range(6))]
    (config.output / "predictions.csv").write_text("\n".join(lines))
    found = read_items(result, config.output)
    assert found is not None
    assert {name: values.sum() for name, values in found[1].items()} == {"a top-1": 100, "a top-5": 500}


def test_top_5_of_few_neighbours_counts_as_many_answers() -> None:
    """DINO's eval_knn.py counts min(5, k): classes without a vote are no answers."""
    ranks = {f"{k}-NN": np.arange(7) for k in (1, 3, 10)}
    metrics = metrics_of(ranks, [], num_classes=7, seed=0)
    found = {name: metric.value for name, metric in metrics.items() if "top-5" in name}
    assert found == pytest.approx({"1-NN top-5": 100 / 7, "3-NN top-5": 300 / 7, "10-NN top-5": 500 / 7})


def test_the_interval_is_that_of_resampled_images() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 3, 400)
    found = accuracy(ranks, 1, seed=0)
    resampled = 100 * (ranks[rng.integers(0, 400, (10_000, 400))] < 1).mean(1)
    assert found.value == 100 * (ranks == 0).mean()
    assert found.interval_95 == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.3)
    assert accuracy(ranks, 1, seed=0) == found
    assert accuracy(np.zeros(5, np.int64), 1, 0).interval_95 == [100, 100]
    assert accuracy(np.full(5, 7), 5, 0).value == 0


def test_damaged_features_are_made_again_and_a_second_run_is_refused(configure: Configure) -> None:
    config = configure(classifiers=["knn"])
    with lock_folder(config.output), pytest.raises(ValueError, match="is in use by process"):
        evaluate(config)
    first = evaluate(config)
    (config.output / "result.json").unlink()
    for path in (config.output / "features").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-8])
    assert evaluate(config).metrics == first.metrics


@pytest.mark.parametrize("name", ANY)
def test_any_backbone(name: str, configure: Configure, tmp_path: Path) -> None:
    side = 28 if "patch14" in name or "blocks" in name else 32
    given = configure(backbone=backbone_of(name, tmp_path), crop=side, classifiers=["knn"])
    result = evaluate(given)
    assert "pooled" in result.protocol.settings["knn_features"]
    assert name in result.protocol.deviations["backbone"][1]
    assert evaluate(given) == result


def test_a_crop_that_a_network_does_not_take_is_refused(configure: Configure) -> None:
    with pytest.raises(
        ValueError, match=r"crop=32: image size 32 x 32: .*:blocks takes a multiple of 14; choose another with --crop"
    ):
        evaluate(configure(backbone=Path(f"{FUNCTIONS}:blocks")))
