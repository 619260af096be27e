"""From a backbone and VOC to a result, under each protocol; what is said of mistakes; and that a killed run continues."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import eval.__main__
from eval import progress
from eval.probes import patches
from eval.result import read_arrays, read_result
from eval.retrieval_segmentation import retrieval, task
from eval.retrieval_segmentation.config import ProtocolName, RetrievalSegmentationConfig
from eval.retrieval_segmentation.task import evaluate
from tests.conftest import RunMain
from tests.eval.conftest import names_of_items
from tests.eval.retrieval_segmentation.conftest import TEST, TRAIN

CAPI: dict[str, Any] = {"protocol": "capi-knn", "memory_size": None, "neighbours": None}


def options(config: RetrievalSegmentationConfig, *more: str) -> list[str]:
    return [
        "retrieval_segmentation",
        *("--backbone", str(config.backbone), "--data", str(config.data), "--output", str(config.output)),
        *("--workers", "0", "--device", "cpu", "--input-size", "64", *more),
    ]


@pytest.mark.parametrize("protocol", ["hummingbird", "hummingbird-fixed", "capi-knn"])
def test_the_command_from_backbone_to_result(
    protocol: ProtocolName, config: RetrievalSegmentationConfig, run_main: RunMain
) -> None:
    more = () if protocol == "capi-knn" else ("--memory-size", "200", "--neighbours", "5")
    assert "mIoU" in run_main(eval.__main__.main, options(config, "--protocol", protocol, *more)).output()
    result = read_result(config.output / "result.json")
    assert result.protocol.name == protocol + ("" if protocol == "capi-knn" else "-102k")
    changed = {"input_size"} if protocol == "capi-knn" else {"input_size", "memory_size", "neighbours"}
    assert set(result.protocol.deviations) == changed
    counts = read_arrays(config.output / result.artefacts["image_pixels"])["counts"].sum(axis=0)
    iou = counts[0] / np.maximum(counts[1] + counts[2] - counts[0], 1)
    # Of hummingbird all 21 classes count, else those that are labelled or predicted.
    counted = np.ones(len(iou), bool) if protocol == "hummingbird" else counts[1] + counts[2] > 0
    assert result.metrics["mIoU"].value == pytest.approx(100 * iou[counted].mean(), rel=1e-12)
    assert result.metrics["aAcc"].value > 60  # textures are told from a plain ground even by random weights
    assert names_of_items(result, config.output, ["mIoU"]) == tuple(TEST)
    pictures = {name: path for name, path in result.artefacts.items() if name.startswith("prediction on ")}
    assert list(pictures) == [f"prediction on {name}" for name in TEST]
    with Image.open(config.output / pictures[f"prediction on {TEST[0]}"]) as image:
        assert (image.width, image.height >= 2 * 224) == (3 * 224, True)  # image, truth, prediction; the patches that voted


def test_pixels_that_do_not_count_are_background_in_hummingbirds_memory_and_nothing_in_the_fixed_one(
    config: RetrievalSegmentationConfig,
) -> None:
    found = {}
    for protocol in ("hummingbird", "hummingbird-fixed", "capi-knn"):
        changes = CAPI if protocol == "capi-knn" else {"protocol": protocol}
        chosen = replace(config, output=config.output / protocol, **changes)
        evaluate(chosen)
        values = [np.load(path) for path in (chosen.output / "patches").glob("*/*.npy")]
        found[protocol] = {int(value) for array in values if array.dtype == np.uint8 for value in np.unique(array)}
    assert found == {"hummingbird": {0, 3, 7, 255}, "hummingbird-fixed": {0, 3, 7, 255}, "capi-knn": {0, 3, 7, 21, 255}}


def test_a_killed_run_continues_to_the_same_figures(
    config: RetrievalSegmentationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches, "_FILE_BYTES", 1)  # one view per file
    monkeypatch.setattr(retrieval, "QUERIES_AT_ONCE", 1)  # and one image per file of counts
    expected = evaluate(replace(config, output=config.output / "whole"))
    written = 0

    class Killed(BaseException):
        pass

    def count(work: Any, after: int) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal written
            written += 1
            if written > after:
                raise Killed
            return work(*given, **named)

        return call

    for target, name, after in ((patches.FeatureStore, "write", 3), (retrieval, "confusion", 2)):
        written = 0
        with monkeypatch.context() as patch:
            patch.setattr(target, name, count(getattr(target, name), after))
            with pytest.raises(Killed):
                evaluate(config)
    (folder,) = (config.output / "confusions").iterdir()
    before = {path: path.stat().st_mtime_ns for path in [*folder.iterdir(), *(config.output / "patches").glob("*/*.npy")]}
    assert len(list(folder.iterdir())) == 2
    result = evaluate(config)
    assert {name: metric.value for name, metric in result.metrics.items()} == {
        name: metric.value for name, metric in expected.metrics.items()
    }
    assert all(path.stat().st_mtime_ns == state for path, state in before.items())
    assert evaluate(config) == result


def test_figures_do_not_depend_on_engine_batches_or_files(
    config: RetrievalSegmentationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in ({}, CAPI):
        first = evaluate(replace(config, **changes, output=config.output / f"a{len(changes)}"))
        with monkeypatch.context() as patch:
            patch.setattr(patches, "_FILE_BYTES", 1)
            patch.setattr(retrieval, "QUERIES_AT_ONCE", 1)
            other = replace(config, **changes, output=config.output / f"b{len(changes)}", search="faiss", batch_size=3)
            assert evaluate(other).metrics == first.metrics


@pytest.mark.parametrize("changes", [{}, CAPI])
def test_vectors_are_made_on_the_device(
    changes: dict[str, Any], config: RetrievalSegmentationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU made those of the whole memory anew for every 65,536 patches that ask."""
    devices = []

    def search(queries_TD: torch.Tensor, blocks: Iterable[torch.Tensor], *_: Any) -> None:
        devices.extend(vectors.device.type for vectors in (queries_TD, *blocks))
        raise ValueError("stopped")

    def on_meta(*given: Any) -> retrieval.Retrieval:
        return replace(retrieval.Retrieval(*given), device=torch.device("meta"))

    monkeypatch.setattr(retrieval, "nearest_rows", search)
    monkeypatch.setattr(task, "Retrieval", on_meta)
    with pytest.raises(ValueError, match="stopped"):
        evaluate(replace(config, **changes))
    assert devices == ["meta", "meta"]


def test_the_need_of_memory_is_said_before_anything_runs_and_does_not_grow_with_the_data(
    config: RetrievalSegmentationConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(*_: Any) -> None:
        raise ValueError("stopped")

    monkeypatch.setattr(task, "fill_patches", stop)
    said = []
    for train in (TRAIN[:2], TRAIN):
        (config.data / "ImageSets/Segmentation/trainaug.txt").write_text("\n".join(train))
        caplog.clear()
        with caplog.at_level("INFO"), pytest.raises(ValueError, match="stopped"):
            evaluate(replace(config, memory_size=120))
        (line,) = (record.getMessage() for record in caplog.records if "GiB" in record.getMessage())
        said.append(line)
    assert said[0] == said[1]
    assert "the memory has 120 patches" in said[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--memory-size", "9"), "memory_size=9: 20 views of training images need at least a patch each"),
        (("--memory-size", "29"), "the memory would hold 20 patches, and 30 to 16,777,216 can be searched"),
        (("--input-size", "60"), "input_size=60 is not a multiple of 8, the side of the backbone's patches"),
        (("--protocol", "capi-knn", "--neighbours", "3"), "neighbours has no effect under --protocol capi-knn; leave it out"),
        (("--temperature", "nan"), "temperature=nan must be positive"),
        (("--neighbours", "0"), "neighbours=0 must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(
    more: tuple[str, ...], message: str, config: RetrievalSegmentationConfig, run_main: RunMain
) -> None:
    assert message in run_main(eval.__main__.main, options(config, *more)).mistake()
    assert not config.output.exists()


def test_bad_data_is_one_line_before_anything_runs(config: RetrievalSegmentationConfig, run_main: RunMain) -> None:
    def mistake(*more: str) -> str:
        return run_main(eval.__main__.main, options(config, *more)).mistake()

    labels = config.data / "SegmentationClassAug"
    Image.fromarray(np.full((64, 80), 40, np.uint8)).save(labels / "t1.png")
    assert "SegmentationClassAug/t1.png (40)" in mistake()
    (labels / "t1.png").unlink()
    assert "t1" in mistake()
    (config.data / "ImageSets/Segmentation/trainaug.txt").write_text("\n".join(TRAIN[:1] + TRAIN[2:]))
    wanted = "9 training images, of which a share of 0.1 is none; it needs at least 10"
    assert wanted in mistake("--protocol", "capi-knn")
    labels.rename(config.data / "elsewhere")
    assert "has no SegmentationClassAug; get" in (line := mistake())
    assert "https://" in line
    assert not config.output.exists()


def test_the_neighbours_of_a_remembered_image_are_its_own_patches(config: RetrievalSegmentationConfig) -> None:
    """CAPI's rule on an image that is also tested finds each pixel again."""
    for place in ("JPEGImages/{}.jpg", "SegmentationClass{}/{}.png"):
        source, target = (place.format(*names[-place.count("{}") :]) for names in (("Aug", "t0"), ("", "v0")))
        (config.data / target).write_bytes((config.data / source).read_bytes())
    (config.data / "ImageSets/Segmentation/val.txt").write_text("v0\n")
    result = evaluate(replace(config, **CAPI))
    chosen = result.config["chosen_neighbours"], result.config["chosen_distance"]
    assert chosen[0] in (1, 3, 10, 30)
    assert chosen[1] in ("cosine", "L2")
    if chosen[0] == 1:
        assert result.metrics["aAcc"].value == 100
    assert json.loads((config.output / "config.json").read_text())["protocol"] == "capi-knn"
    assert torch.tensor(result.metrics["mIoU"].value).isfinite()


def test_how_long_patches_and_search_take_is_said(
    config: RetrievalSegmentationConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "ESTIMATE_AFTER_S", 0)
    with caplog.at_level("INFO", logger="eval.progress"):
        evaluate(config)
    told = [record.getMessage().split(" take")[0] for record in caplog.records if record.name == "eval.progress"]
    assert told == ["patches of trainaug: 20 images", "patches of val: 3 images", "search (test): 3 images"]
