"""What a run leaves on the disk: kept checkpoints, and the previous one when the disk is full."""

import errno
import resource
import signal
from pathlib import Path

import pytest
import torch

from pretrain.__main__ import main
from pretrain.config import parse_run
from pretrain.networks import build_networks
from pretrain.run import pretrain
from pretrain.state import CheckpointNotWrittenError, run_settings, save_checkpoint
from tests.conftest import RunMain
from tests.pretrain.conftest import tiny_options

RECIPE = "sample_dino"


def checkpoints(output: Path) -> list[str]:
    return sorted(path.name.removeprefix("checkpoint").removesuffix(".pth") for path in output.glob("*.pth"))


def run(images: Path, output: Path, **options: object) -> None:
    pretrain(parse_run([RECIPE, *tiny_options(images, output, "dino", **options)]))


def test_the_newest_and_every_kth_stay(image_folder: Path, tmp_path: Path) -> None:
    """Three steps an epoch, a checkpoint at every second step and at the epochs that are kept."""
    foreign = tmp_path / "checkpoint_step00000001.pth"
    foreign.write_text("of another run")
    options = {"train__checkpoint_every": 2, "train__keep_last": 3, "train__keep_every": 2, "optim__warmup_epochs": 0}
    run(image_folder, tmp_path, train__epochs=4, **options)
    newest = ["_step00000008", "_step00000010", "_step00000012"]
    assert checkpoints(tmp_path) == ["", "_epoch0002", "_epoch0004", "_step00000001", *newest]
    assert foreign.read_text() == "of another run"
    for name in ("checkpoint_step00000012.pth", "checkpoint_epoch0004.pth"):
        assert (tmp_path / name).samefile(tmp_path / "checkpoint.pth"), "a second name, no second copy"
    assert torch.load(tmp_path / "checkpoint_epoch0002.pth", weights_only=True)["step"] == 6
    assert torch.load(tmp_path / "checkpoint_step00000010.pth", weights_only=True)["step"] == 10


def test_a_continued_run_goes_on_removing_its_own(image_folder: Path, tmp_path: Path) -> None:
    config = parse_run(
        [
            RECIPE,
            *tiny_options(image_folder, tmp_path, "dino", train__checkpoint_every=1, train__resume="auto", train__epochs=3),
        ]
    )
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        _stop_after(patch, 4)
        with pytest.raises(_Stop):
            pretrain(config)
    assert checkpoints(tmp_path) == ["", "_step00000003", "_step00000004"]
    config.train.keep_last = 1
    pretrain(config)
    assert checkpoints(tmp_path) == [""]


class _Stop(BaseException):
    """Stands for a kill."""


def _stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    def killed(self: object, moment: object) -> None:
        if getattr(moment, "step") > steps:  # noqa: B009 - the moment's type does not matter here
            raise _Stop

    patch.setattr("pretrain.recording.Recorder.after_step", killed)


def test_a_full_disk_leaves_the_previous_checkpoint(image_folder: Path, tmp_path: Path, run_main: RunMain) -> None:
    """The limit on a file's size stands for the disk: the same failure of the same system call, in the middle of the file."""
    options = [RECIPE, *tiny_options(image_folder, tmp_path, "dino", train__checkpoint_every=1)]
    config = parse_run(options)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        _stop_after(patch, 2)
        with pytest.raises(_Stop):
            pretrain(config)
    path = tmp_path / "checkpoint.pth"
    before = path.read_bytes()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        finished = run_main(main, options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert finished.status == 2
    message = finished.stderr.splitlines()[-1]
    assert message.startswith(f"error: cannot write the checkpoint {path} after step 3: ")
    assert "the previous one is intact" in message
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*")), "half a checkpoint was left"
    assert run_main(main, options).status == 0
    assert torch.load(path, weights_only=True)["step"] == 6


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Network file systems say so as late as when the file is flushed."""

    def full(descriptor: int) -> None:
        raise OSError(number, "No space left on device")

    config = parse_run([RECIPE, *tiny_options(tmp_path, tmp_path, "dino")])
    networks = build_networks(config, torch.device("cpu"))
    path = tmp_path / "checkpoint.pth"
    path.write_text("previous")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointNotWrittenError, match="No space left on device; the previous one is intact"):
        save_checkpoint(path, run_settings(config, []), networks, 1, 0)
    assert [item.name for item in tmp_path.iterdir()] == ["checkpoint.pth"]
    assert path.read_text() == "previous"
