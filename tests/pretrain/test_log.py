"""What a run leaves to look at survives its being continued, and a full disk is said of the file that it is."""

import logging
from contextlib import closing
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretrain.__main__ import main
from pretrain.config import parse_run
from pretrain.data.sources import TarImages
from pretrain.log import RunLog
from pretrain.run import pretrain
from tests.conftest import RunMain
from tests.pretrain.conftest import full_disk, tiny_run
from tests.pretrain.data.test_sources import write_shard


def test_tensorboard_keeps_the_step_from_which_a_run_continues(tmp_path: Path) -> None:
    """And forgets those that came after it; also those of a run that begins anew, since it had no checkpoint."""
    for first_step, last_step in ((0, 5), (3, 6)):
        log = RunLog(tmp_path, first_step, 6)
        for step in range(first_step + 1, last_step + 1):
            log.write(step, 0, {"loss": 10 * first_step + step})
        log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 1), (2, 2), (3, 3), (4, 34), (5, 35), (6, 36)]
    log = RunLog(tmp_path, 0, 6)
    log.write(1, 0, {"loss": 7})
    log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 7)]


def test_pictures_of_the_step_from_which_a_run_continues_stay(image_folder: Path, tmp_path: Path) -> None:
    options = {"watch__every": 1, "watch__num_images": 1, "optim__warmup_epochs": 0}
    pretrain(parse_run(tiny_run(image_folder, tmp_path, "dino", train__epochs=1, **options)))
    RunLog(tmp_path, 3, 6).close()
    assert len(EventAccumulator(str(tmp_path / "tensorboard")).Reload().Images("watch/attention")) == 1


@pytest.mark.parametrize(
    ("file", "size", "epoch"), [("log.jsonl", 1000, 10**1900), ("tensorboard", 110, 0)], ids=["log", "board"]
)
def test_a_full_disk_names_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str], file: str, size: int, epoch: int) -> None:
    log = RunLog(tmp_path, 0, 100)
    log.write(1, 0, {"loss": 0.5})
    log.board.flush()
    before = (tmp_path / "log.jsonl").read_text()
    with full_disk(size), pytest.raises(OSError, match="File too large") as caught, closing(log):
        log.write(2, epoch, {"loss": 0.5})
    assert caught.value.filename == str(tmp_path / file)
    assert (tmp_path / "log.jsonl").read_text().startswith(before)
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_names_config_and_index(image_folder: Path, tmp_path: Path, run_main: RunMain) -> None:
    """What was there stays."""
    output, shard = tmp_path / "run", write_shard(tmp_path / "set/0.tar", {f"{number}.jpg": b"" for number in range(99)})
    output.mkdir()
    (output / "config.yaml").write_text("before")
    with full_disk(500):
        message = run_main(main, tiny_run(image_folder, output, "dino")).stderr.splitlines()[-1]
        with pytest.raises(OSError, match="File too large") as caught:
            TarImages([shard], tmp_path / "index")
    assert message == f"error: cannot use {output}/config.yaml: File too large"
    assert (output / "config.yaml").read_text() == "before"
    assert Path(caught.value.filename).parent == tmp_path / "index"
    assert not list((tmp_path / "index").iterdir())


def test_a_full_disk_costs_plots_but_no_training(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path: full(path))
    with caplog.at_level(logging.ERROR):
        pretrain(parse_run(tiny_run(image_folder, tmp_path, "dino", watch__every=1, watch__num_images=1)))
    assert f"No space left on device: '{tmp_path}/watch/epoch_0001/attention.png'" in caplog.text
    assert f"No space left on device: '{tmp_path}/watch/curves.png'" in caplog.text
