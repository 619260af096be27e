"""Linear segmentation from backbone to result: every protocol and data set, sweeps, interruptions, several processes, mistakes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import eval.linear_segmentation.task as task
from backbones.spec import ViTSpec
from eval import progress
from eval.__main__ import main
from eval.linear_segmentation.config import LinearSegmentationConfig
from eval.linear_segmentation.protocol import learning_rate, protocol_of, rules_of, updates
from eval.linear_segmentation.task import evaluate
from eval.linear_segmentation.training import trials_of
from eval.probes.sets import find_set
from eval.result import read_result
from tests.conftest import Finished, RunMain
from tests.eval.conftest import names_of_items
from tests.eval.probe_sets import make_cityscapes, make_voc
from tests.processes import evaluate_in_two

Configure = Callable[..., LinearSegmentationConfig]


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc(tmp_path_factory.mktemp("voc") / "VOC2012")


@pytest.fixture
def configure(toy_file: Path, voc: Path, tmp_path: Path) -> Configure:
    def make(output: str = "out", **changes: Any) -> LinearSegmentationConfig:
        options: dict[str, Any] = {"backbone": toy_file, "data": voc, "output": tmp_path / output, "size": 32, "iterations": 6}
        options |= {"batch_size": 2, "evaluate_every": 3, "learning_rates": [0.05], "workers": 0, "device": "cpu"}
        return LinearSegmentationConfig(**{**options, **changes})

    return make


def heads(config: LinearSegmentationConfig) -> list[dict[str, torch.Tensor]]:
    state = torch.load(config.output / "linear.pth", weights_only=True)
    return [outcome["weights"] for outcome in state["outcomes"]]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("protocol", ["dinov3", "dinov2", "neco"])
def test_every_protocol_learns_and_its_counts_give_its_metrics(protocol: Any, configure: Configure) -> None:
    config = configure(protocol=protocol, iterations=30, evaluate_every=15)
    result = evaluate(config)
    assert result.protocol.name == f"linear-segmentation-{protocol}"
    train = result.datasets["train"]
    assert (train.name, train.split, train.num_items) == (
        ("PASCAL VOC 2012", "trainaug", 4) if protocol == "neco" else ("PASCAL VOC 2012", "train", 3)
    )
    assert result.metrics["aAcc"].value > 60
    assert set(result.breakdown) == set(find_set(config.data).classes)
    assert names_of_items(result, config.output, ["mIoU", "aAcc", "mAcc"]) == ("2007_000004", "2007_000005")
    assert all((config.output / path).is_file() for path in result.artefacts.values())
    with Image.open(config.output / result.artefacts["prediction on 2007_000004"]) as picture:
        assert picture.width >= 3 * 32  # image, truth and prediction
    deviating = {"size", "iterations", "batch_size", "evaluate_every", "learning_rates"}
    assert deviating <= result.protocol.deviations.keys()
    following = {"epochs", "drop_epochs"} if protocol == "neco" else {"stride", "warmup_iterations"}
    assert result.protocol.deviations.keys() == deviating | following
    assert evaluate(config) == result


def test_other_data_sets(tmp_path: Path, ade: Path, configure: Configure) -> None:
    cityscapes = make_cityscapes(tmp_path / "cityscapes")
    result = evaluate(configure(data=cityscapes))
    assert (result.datasets["test"].name, result.protocol.settings["classes"]) == ("Cityscapes", 19)
    result = evaluate(configure("ade", data=ade))
    assert (result.datasets["test"].name, result.protocol.settings["classes"]) == ("ADE20K", 150)
    assert next(iter(result.breakdown)) == "wall"
    # NeCo's class 0 is what ADE20K does not label: never right, and one more class in the mean.
    result = evaluate(configure("neco", data=ade, protocol="neco"))
    assert (next(iter(result.breakdown)), result.protocol.settings["classes"]) == ("unlabelled", 151)
    assert 0 < result.metrics["mIoU"].value < 100 * 2.001 / 151


def test_every_head_of_a_sweep_is_trained_as_alone(configure: Configure) -> None:
    sweep = configure("sweep", learning_rates=[0.05, 0.01], layers=["last", "1", "1+3"])
    result = evaluate(sweep)
    names = ["mIoU", "mIoU (rate 0.01)", "mIoU (rate 0.05, layer 1)", "mIoU (rate 0.01, layer 1)"]
    assert [name for name in result.metrics if name.startswith("mIoU") and "evaluation" not in name][:4] == names
    alone = configure("alone", learning_rates=[0.01], layers=["1"])
    one = evaluate(alone)
    assert same(heads(sweep)[3], heads(alone)[0])
    assert one.metrics["mIoU"].value == result.metrics["mIoU (rate 0.01, layer 1)"].value
    assert heads(sweep)[4]["conv.weight"].shape[1] == 2 * heads(sweep)[0]["conv.weight"].shape[1]


def test_a_sweep_that_begins_with_the_published_rate_is_no_deviation(configure: Configure, toy_spec: ViTSpec) -> None:
    sweep, found = configure(learning_rates=[0.001, 0.01], layers=["last", "2"]), find_set(configure().data)
    assert len(trials_of(rules_of(sweep))) == 4
    protocol = protocol_of(sweep, found, "train", toy_spec)
    assert not {"learning_rates", "layers"} & protocol.deviations.keys()
    protocol = protocol_of(configure(layers=["2"]), found, "trainaug", toy_spec)
    assert {"learning_rates", "layers", "train_split"} <= protocol.deviations.keys()


def test_necos_rate_drops_after_four_fifths_of_any_number_of_updates(configure: Configure) -> None:
    for iterations, per_pass in ((100, 3), (5, 40), (1, 3)):
        rules = rules_of(configure(protocol="neco", iterations=iterations))
        assert (rules.epochs, updates(rules, per_pass * rules.batch_size)) == (None, (iterations, per_pass))
        rates = [learning_rate(rules, 1.0, step, iterations, per_pass) for step in range(iterations)]
        before = max(1, iterations * 4 // 5)
        assert rates == pytest.approx([1.0] * before + [0.1] * (iterations - before))
    published = rules_of(configure(protocol="neco", iterations=None))
    assert [learning_rate(published, 1.0, step, 75, 3) for step in (59, 60, 74)] == pytest.approx([1.0, 0.1, 0.1])


@pytest.mark.parametrize("fails_at", [2, 4, 5])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    fails_at: int, configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = configure("whole", checkpoint_interval=2)
    monkeypatch.setattr(progress, "ESTIMATE_AFTER_S", 0)
    with caplog.at_level("INFO", logger="eval.progress"):
        wanted = evaluate(whole)
    assert "linear heads: 6 updates take about" in caplog.text
    parts = configure("parts", checkpoint_interval=2)
    batches = task.training_batches

    def interrupted(first: int, **options: Any) -> Any:
        for number, batch in enumerate(batches(first, **options)):
            if number == fails_at:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(task, "training_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(parts)
    monkeypatch.setattr(task, "training_batches", batches)
    found = evaluate(parts)
    assert found.metrics == wanted.metrics
    assert found.inputs_sha256 == wanted.inputs_sha256
    assert same(heads(parts)[0], heads(whole)[0])
    assert (parts.output / "image_pixels.npz").read_bytes() == (whole.output / "image_pixels.npz").read_bytes()
    (parts.output / "result.json").unlink()
    with pytest.raises(ValueError, match="of an unfinished run with other inputs"):
        evaluate(configure("parts", seed=1))


def test_two_processes_give_what_one_gives(configure: Configure, tmp_path: Path) -> None:
    """Also a batch of three images, of which one process gets two."""
    changes = {"batch_size": 3, "learning_rates": [0.05, 0.01]}
    alone = evaluate(configure("one", **changes))
    two = configure("two", **changes)
    evaluate_in_two("eval.linear_segmentation.task", two, tmp_path / "processes")
    together = read_result(two.output / "result.json")
    assert together.environment.world_size == 2
    assert {name: metric.value for name, metric in together.metrics.items()} == pytest.approx(
        {name: metric.value for name, metric in alone.metrics.items()}, abs=0.5
    )
    for one, other in zip(heads(configure("one")), heads(two), strict=True):
        torch.testing.assert_close(other["conv.weight"], one["conv.weight"], atol=1e-4, rtol=0)


@pytest.fixture
def run(toy_file: Path, voc: Path, tmp_path: Path, run_main: RunMain) -> Callable[..., Finished]:
    data = shutil.copytree(voc, tmp_path / "VOC2012")
    given = ("--backbone", toy_file, "--data", data, "--output", tmp_path / "out", "--workers", 0, "--device", "cpu")
    return lambda *more: run_main(main, ["linear_segmentation", *given, *more])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data none", "none: no such folder; --data is"),
        ("--train-split trainval", "train_split=trainval: PASCAL VOC 2012 has train, trainaug"),
        ("--train-split val", "train_split=val: PASCAL VOC 2012 has train, trainaug"),
        ("--layers 9", "layers=[9]: give ascending numbers of this vit's blocks or stages, 0 to 3"),
        ("--layers first", "'first' is neither `last` nor a block"),
        ("--layers last last", "must name at least one value, and none twice"),
        ("--learning-rates 0", "learning_rates=[0.0] must be positive"),
        ("--protocol neco --size 100", "size=100 is not a multiple of 16, which the vit needs"),
        ("--iterations 0", "iterations=0 must be at least 1"),
    ],
)
def test_mistakes_are_one_line(options: str, message: str, tmp_path: Path, run: Callable[..., Finished]) -> None:
    assert message in run(*options.split()).mistake()
    assert not (tmp_path / "out").exists()


def test_bad_data_is_one_line_before_anything_runs(tmp_path: Path, run: Callable[..., Finished]) -> None:
    data = tmp_path / "VOC2012"
    labels = data / "SegmentationClass/2007_000005.png"
    Image.fromarray(np.full((38, 46), 30, np.uint8)).save(labels)
    assert "labels other than 0 to 20 and 255: SegmentationClass/2007_000005.png (30)" in run().mistake()
    labels.unlink()
    assert "lacks images that ImageSets/Segmentation/val.txt names: 2007_000005" in run().mistake()
    shutil.rmtree(data / "SegmentationClassAug")
    found = run("--protocol", "neco").mistake()
    assert "has no SegmentationClassAug" in found
    assert "https://" in found
    assert not (tmp_path / "out").exists()


def test_rates_that_diverge_are_an_error(configure: Configure) -> None:
    with pytest.raises(ValueError, match="give smaller learning_rates"):
        evaluate(configure(protocol="neco", learning_rates=[1e30]))
