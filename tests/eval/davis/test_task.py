"""From a backbone and DAVIS to a result, and what any of the commands says of a mistake."""

import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.files import lock_folder
from eval.davis.config import DavisConfig
from eval.davis.task import evaluate
from eval.propagation.masks import overlay, read_image, read_mask, write_mask
from eval.propagation.measures import METRICS, score_sequences
from eval.propagation.protocol import RULES, ProtocolName
from eval.result import read_result
from eval.tasks import BENCHMARKS
from tables.layout import benchmarks_of
from tests.architectures import ANY, FUNCTIONS, backbone_of
from tests.eval.conftest import names_of_items
from tests.eval.davis.conftest import HEIGHT, SEQUENCES, SPECS, WIDTH, Run
from tests.layouts import REGISTERS
from tests.toy import write_toy_backbone


def test_the_command_from_backbone_to_result(davis: Path, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "out"
    assert "J&F-Mean" in run("task", "--overlays", "true", "--name", "tiny").output()
    result = read_result(output / "result.json")
    assert tuple(result.metrics) == METRICS
    scores = score_sequences(SEQUENCES, davis / "Annotations/480p", output / "masks")
    for name, metric in result.metrics.items():
        assert metric.value == pytest.approx(100 * scores.overall[name], abs=1e-9)
        assert (metric.unit, metric.higher_is_better) == ("percent", "Decay" not in name)
    assert set(result.breakdown) == {f"{name}_{number}" for name in SEQUENCES for number in (1, 2)}
    assert result.backbone.name == "tiny"
    assert result.protocol.deviations == {"short_side": [480, 64]}
    assert result.protocol.settings["stride"] == 8
    assert (result.datasets["test"].num_items, result.coverage) == (3, "subset")
    for path in result.artefacts.values():
        assert (output / path).exists()
    frame, mask = davis / "JPEGImages/480p/boat/00001.jpg", output / "masks/boat/00001.png"
    assert read_mask(mask).any()
    assert (read_image(output / "overlays/boat/00001.png") == overlay(frame, mask)).all()
    assert json.loads((output / "config.json").read_text())["short_side"] == 64
    assert names_of_items(result, output, ["J&F-Mean", "J-Mean", "F-Mean"]) == SEQUENCES


def test_overlays_can_be_had_later(davis: Path, config: DavisConfig) -> None:
    """A finished task once ignored the option; and overlays of other settings were kept."""
    config, output = replace(config, sequences="boat"), config.output
    first = evaluate(config)
    assert "overlays" not in first.artefacts
    second = evaluate(replace(config, overlays=True))
    assert second == replace(first, artefacts={**first.artefacts, "overlays": "overlays"})
    assert evaluate(config) == second
    (output / "result.json").unlink()
    shutil.rmtree(output / "masks")
    evaluate(replace(config, overlays=True, topk=1, n_last_frames=0))
    expected = overlay(davis / "JPEGImages/480p/boat/00004.jpg", output / "masks/boat/00004.png")
    assert (read_image(output / "overlays/boat/00004.png") == expected).all()


def test_all_objects_are_one_in_2016(davis: Path, config: DavisConfig) -> None:
    (davis / "ImageSets/2017").rename(davis / "ImageSets/2016")
    result = evaluate(replace(config, year="2016"))
    assert set(result.breakdown) == {f"{name}_1" for name in SEQUENCES}
    assert (result.datasets["test"].name, result.protocol.name) == ("DAVIS-2016", BENCHMARKS["davis_2016"].protocol)
    masks = config.output / "masks"
    assert np.unique(read_mask(masks / "boat/00004.png")).tolist() == [0, 1]
    scores = score_sequences(SEQUENCES, davis / "Annotations/480p", masks, one_object=True)
    assert result.metrics["J&F-Mean"].value == pytest.approx(100 * scores.overall["J&F-Mean"], abs=1e-9)


def test_data_that_do_not_fit_are_found_before_anything_runs(davis: Path, tmp_path: Path, run: Run) -> None:
    (davis / "Annotations/480p/cart/00002.png").unlink()
    assert "scoring needs a mask of every frame" in run("task").mistake()
    given = ("--sequences", "boat", "--backbone", write_toy_backbone(tmp_path, REGISTERS))
    assert re.search("not a multiple of the patch size 14; .*--protocol fixed", run("task", *given).mistake())
    assert not (tmp_path / "out").exists()
    run("task", *given, "--protocol", "fixed").output()


@pytest.mark.parametrize(
    ("family", "block", "stride", "features"),
    [
        ("vit", None, 8, "after the last of 2 blocks"),
        ("vit", 0, 8, "after block 0 of 2 (0-based), without the final norm"),
        ("dinov3", None, 16, "after the last of 2 blocks, after the final norm"),
        ("dinov3", 1, 16, "after block 1 of 2 (0-based), without the final norm"),
        ("swin", None, 8, "after the last of 2 blocks, after the final norm"),
        ("swin", 0, 4, "after block 0 of 2 (0-based), without the final norm"),
        ("resnet", None, 32, "after the last of 4 blocks"),
        ("resnet", 2, 16, "after block 2 of 4 (0-based), without the final norm"),
    ],
)
def test_every_backbone(
    family: str, block: int | None, stride: int, features: str, backbone_files: dict[str, Path], config: DavisConfig
) -> None:
    result = evaluate(replace(config, backbone=backbone_files[family], block=block, sequences="boat"))
    assert result.protocol.settings["features"] == features
    assert result.protocol.settings["stride"] == stride
    assert result.backbone.spec["family"] == SPECS[family].family
    assert ("block" in result.protocol.deviations) == (block is not None)
    assert np.isfinite([metric.value for metric in result.metrics.values()]).all()


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("task", "--backbone none", "no such file; make it with"),
        ("task", "--data none", "should be a DAVIS folder"),
        ("task", "--jobs -1", "jobs=-1 must be at least 0"),
        ("propagation", "--output {}/full", "files of unknown origin"),
        ("propagation", "--block 2", "taps [2] are not ascending indices of this vit's 2 blocks"),
        ("propagation", "--device abacus", "device 'abacus' is not known"),
        ("propagation", "--short_side 68", "not a multiple of the patch size"),
        ("propagation", "--protocol cropmae", "image size 64 x 117 is not a multiple of the patch size"),
        (
            "propagation",
            "--protocol dinov3 --round-up true",
            "round_up=True goes with protocol=dino; protocol=dinov3 says itself",
        ),
        ("propagation", "--protocol xyz", "--protocol"),
        ("propagation", "--unknown 1", "--unknown"),
        ("scores", "--predictions none", "none: no such folder"),
        ("scores", "--predictions {}/full", "full/boat: no such folder (3 of 3 sequences are missing)"),
        ("scores", "--predictions {}/small", "boat/00001.png: 5 x 4 pixels, but the annotation has 96 x 64"),
        ("scores", "--official", "requirements-official.txt"),
        ("scores", "--official --year 2016", "2017 only"),
        ("pictures", "--compare []", "names no folder of masks"),
        ("pictures", "--compare one two --titles a a", "2 folders need as many titles, each another"),
        ("pictures", "--compare one ./one", "compare names a folder twice"),
        ("pictures", "--compare {}/small", f"boat/00001.png: 5 x 4 pixels, but its frame has {WIDTH} x {HEIGHT}"),
        ("explain", "--frame 99", "boat has frames 0 to 4"),
        ("explain", "--x 96", "outside the 96 x 64 pixels"),
    ],
)
def test_wrong_options_are_one_line(command: str, options: str, message: str, davis: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    shutil.copytree(davis / "Annotations/480p", tmp_path / "small")
    write_mask(tmp_path / "small/boat/00001.png", np.zeros((4, 5), np.uint8))
    assert message in run(command, *options.format(tmp_path).split()).mistake()
    assert not (tmp_path / "out").exists()


def test_what_a_crash_damaged_is_done_again_and_times_add_up(config: DavisConfig) -> None:
    """A folder with half a sequence once failed for ever, and the time was that of the last part."""
    first = evaluate(config)
    output, masks = config.output, config.output / "masks"
    (masks / "boat/00003.png").unlink()
    (masks / "cart/00001.png").write_bytes((masks / "cart/00001.png").read_bytes()[:-20])
    (masks / ".drone.77.partial").mkdir()
    (output / "result.json").unlink()
    shutil.rmtree(masks / "drone")
    seconds, begin, inputs = json.loads((output / ".parts.json").read_text())
    (output / ".parts.json").write_text(json.dumps([seconds + 1000, begin, inputs]))
    second = evaluate(config)
    assert second.metrics == first.metrics
    assert 1000 < second.wall_time_s < 1000 + 60
    assert sorted(path.name for path in masks.iterdir()) == [*SEQUENCES, "propagation.json"]
    (output / "result.json").unlink()
    (output / ".parts.json").write_text(json.dumps([seconds + 1000, begin, "of another run"]))
    assert evaluate(config).wall_time_s < 60


def test_the_time_between_two_parts_does_not_count(config: DavisConfig) -> None:
    """The lock of the second part once counted as the last file of the first."""
    evaluate(config)
    output, an_hour_ago = config.output, time.time() - 3600
    (output / "result.json").unlink()
    inputs = json.loads((output / ".parts.json").read_text())[2]
    (output / ".parts.json").write_text(json.dumps([0, an_hour_ago, inputs]))
    (output / "masks/.boat.77.partial").mkdir()
    for path in output.rglob("*"):
        os.utime(path, (an_hour_ago + 100, an_hour_ago + 100))
    assert 100 < evaluate(config).wall_time_s < 100 + 60


def test_a_second_run_in_the_folder_is_refused(config: DavisConfig, run: Run, backbone_files: dict[str, Path]) -> None:
    with lock_folder(config.output):
        with pytest.raises(ValueError, match=rf"{config.output} is in use by process {os.getpid()} on "):
            evaluate(config)
        assert "is in use by" in run("propagation").mistake()
    evaluate(config)
    with lock_folder(config.output):
        assert evaluate(config).task == "davis", "what is finished is only read"


@pytest.mark.parametrize("name", ["../../evil", "{root}/Annotations/480p/boat", "boat/../cart", "=boat"])
def test_a_list_cannot_lead_out_of_its_folders(name: str, davis: Path, run: Run) -> None:
    """By an absolute path, annotations were scored as predictions: J&F 100."""
    (davis / "ImageSets/2017/val.txt").write_text(f"boat\n{name.format(root=davis)}\n")
    for command in ("task", "propagation", "scores"):
        assert re.search(r"val\.txt: sequence '.*' ?: give a name of", run(command).mistake()), command


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".JPEG"])
def test_suffixes_may_have_any_case_and_hidden_files_are_nobodys(suffix: str, config: DavisConfig, davis: Path) -> None:
    expected = evaluate(config).metrics
    for path in list(davis.glob("*/480p/*/*")):
        path.rename(path.with_suffix(suffix if path.suffix == ".jpg" else ".PNG"))
    for hidden in (
        "JPEGImages/480p/boat/._00000.jpg",
        "Annotations/480p/boat/._00000.png",
        "JPEGImages/480p/.ipynb_checkpoints",
    ):
        (davis / hidden).mkdir() if "ipynb" in hidden else (davis / hidden).write_bytes(b"\0\5\x16\7")
    assert evaluate(replace(config, output=config.output.with_name("other"))).metrics == expected


@pytest.mark.parametrize("name", ANY)
def test_any_backbone(name: str, config: DavisConfig, tmp_path: Path) -> None:
    spec_fits = "patch14" not in name and "blocks" not in name
    given = replace(config, backbone=backbone_of(name, tmp_path), sequences="boat", round_up=not spec_fits)
    result = evaluate(given)
    assert result.metrics["J&F-Mean"].value >= 0
    assert name in result.protocol.deviations["backbone"][1]
    assert result.backbone.spec["family"] == ("function" if ":" in name else "timm")
    assert evaluate(given) == result  # not run again, since digests are those of the same weights
    if ":" in name:
        assert len(result.backbone.spec["source_sha256"]) == len(result.backbone.source["sha256"]) == 64


def test_patches_of_14_pixels_take_frames_that_are_rounded_up(config: DavisConfig) -> None:
    given = replace(config, backbone=Path(f"{FUNCTIONS}:patches_of_14"), sequences="boat")
    with pytest.raises(
        ValueError, match=r"image size 64 x 64: .* takes a multiple of 14; --round-up takes the next sizes that fit"
    ):
        evaluate(given)
    deviations = evaluate(replace(given, round_up=True)).protocol.deviations
    assert deviations["round_up"] == [None, True]
    assert deviations["long_side_multiple"] == [64, None]


@pytest.mark.parametrize("protocol", ["dinov3", "cropmae", "crw"])
def test_each_protocol_is_a_benchmark_of_its_own(protocol: ProtocolName, config: DavisConfig, run: Run) -> None:
    """Others call figures of these rules DAVIS, too; several points lie between them."""
    result = evaluate(replace(config, protocol=protocol, short_side=96, overlays=True))
    assert [benchmark.key for benchmark in benchmarks_of(result)] == [f"davis_{protocol}"]
    assert set(result.protocol.deviations) == {"short_side"} | ({"stretched_to"} if protocol != "dinov3" else set())
    assert result.protocol.settings["topk"] == RULES[protocol].topk
    mask = read_mask(config.output / "masks/cart/00003.png")
    assert set(np.unique(mask)) >= {1, 2}
    assert mask.shape == (HEIGHT, WIDTH)
    assert "holds masks of other inputs" in run("propagation", "--output", config.output / "masks").mistake()


def test_dino_is_another_name_of_published(config: DavisConfig) -> None:
    """A finished run of the former name would otherwise be refused as one of other inputs."""
    first = evaluate(replace(config, protocol="published", sequences="boat"))
    assert evaluate(replace(config, protocol="dino", sequences="boat")) == first
    assert (first.protocol.name, first.protocol.settings["protocol"]) == (BENCHMARKS["davis"].protocol, "published")
