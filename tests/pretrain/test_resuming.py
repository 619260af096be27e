"""Where a run starts: `train.resume`, and a checkpoint that is damaged."""

import logging
from pathlib import Path

import pytest
import torch

from pretrain.config import parse_run
from pretrain.run import pretrain
from tests.pretrain.conftest import tiny_options

RECIPE = "sample_dino"


def run(images: Path, output: Path, **options: object) -> Path:
    return pretrain(parse_run([RECIPE, *tiny_options(images, output, "dino", train__checkpoint_every=1, **options)]))


def student(path: Path) -> dict[str, torch.Tensor]:
    weights = torch.load(path, weights_only=True)["student"]
    assert isinstance(weights, dict)
    return weights


def equal(first: Path, second: Path) -> bool:
    expected = student(second)
    return all(torch.equal(value, expected[name]) for name, value in student(first).items())


@pytest.fixture
def finished(image_folder: Path, tmp_path: Path) -> Path:
    """The folder of a run of six steps that kept them all."""
    run(image_folder, tmp_path / "run", train__keep_last=6)
    return tmp_path / "run"


def test_never_refuses_what_is_there(image_folder: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"checkpoint\.pth exists, and train\.resume is never"):
        run(image_folder, finished, train__resume="never")
    assert equal(run(image_folder, tmp_path / "afresh", train__resume="never"), finished / "checkpoint.pth")


def test_a_named_checkpoint_is_where_another_folder_starts(
    image_folder: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = finished / "checkpoint_step00000002.pth"
    before = sorted(finished.glob("*.pth"))
    branch = run(image_folder, tmp_path / "branch", train__resume=source, train__keep_last=2)
    assert any("continuing after step 2" in message for message in caplog.messages)
    assert equal(branch, finished / "checkpoint.pth")
    assert sorted(finished.glob("*.pth")) == before, "the run that it came from keeps its checkpoints"
    caplog.clear()
    run(image_folder, tmp_path / "branch", train__resume=source)
    assert any("it continues from its own" in message for message in caplog.messages)


def test_a_named_checkpoint_must_have_the_same_settings(image_folder: Path, finished: Path, tmp_path: Path) -> None:
    source = finished / "checkpoint_step00000002.pth"
    with pytest.raises(ValueError, match=r"step00000002\.pth belongs to .* optim\.lr was 0\.02, is 0\.01"):
        run(image_folder, tmp_path / "branch", train__resume=source, optim__lr=0.01)


def test_a_name_without_a_file(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.resume latest: no such file; give auto, never, or a checkpoint"):
        run(image_folder, tmp_path, train__resume="latest")


def test_a_damaged_checkpoint_names_the_newest_intact_one(image_folder: Path, finished: Path) -> None:
    """And what it says to do leads to the same end."""
    newest = finished / "checkpoint.pth"
    expected = finished.with_name("expected.pth")
    expected.write_bytes(newest.read_bytes())
    with newest.open("r+b") as stream:  # as a disk's fault would: also under its second name
        stream.truncate(newest.stat().st_size - 1000)
    older = finished / "checkpoint_step00000005.pth"
    with pytest.raises(
        ValueError, match=r"checkpoint\.pth: damaged .*newest intact .*_step00000005\.pth, after step 5"
    ) as caught:
        run(image_folder, finished)
    assert len(str(caught.value).splitlines()) == 1
    assert f"remove checkpoint.pth and add --train.resume {older}" in str(caught.value)
    newest.unlink()
    assert equal(run(image_folder, finished, train__resume=older), expected)


def test_without_an_older_one_a_damaged_checkpoint_says_so(image_folder: Path, tmp_path: Path) -> None:
    path = run(image_folder, tmp_path, train__keep_last=1)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="no intact older one beside it"):
        run(image_folder, tmp_path)
