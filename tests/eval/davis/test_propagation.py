"""The masks of whole sequences: the command, an interrupted run that continues, several processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import LOCK_FILE
from eval.davis.config import DavisConfig
from eval.davis.task import evaluate
from eval.propagation import writing
from eval.propagation.masks import Mask, read_mask, write_mask
from eval.result import read_result
from tests.conftest import REPOSITORY
from tests.eval.davis.conftest import FRAMES, HEIGHT, SEQUENCES, WIDTH, Run, draw_sequence, sequences_of
from tests.processes import evaluate_in_two


def test_the_command_writes_a_mask_for_every_frame(davis: Path, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "out"
    assert run("propagation").output() == ""
    for name in SEQUENCES:
        found, wanted = (sorted((folder / name).glob("*.png")) for folder in (output, davis / "Annotations/480p"))
        assert [path.name for path in found] == [path.name for path in wanted]
        assert (read_mask(found[0]) == read_mask(wanted[0])).all()
        assert np.mean(read_mask(found[1]) == read_mask(wanted[1])) > 0.8  # random features still find what hardly moved
        assert read_mask(found[-1]).shape == (HEIGHT, WIDTH)


def test_the_log_tells_of_progress_inside_a_sequence(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A long video on a CPU was silent for hours, and its first frames counted after the eighth."""
    monkeypatch.setattr(writing, "_TELL_AFTER_S", 0)
    caplog.set_level("INFO")
    run("propagation", "--sequences", "boat").output()
    told = [record.message for record in caplog.records if "boat: " in record.message and " of " in record.message]
    assert told == [f"boat: {number} of {FRAMES} frames" for number in range(1, FRAMES + 1)]


def test_objects_without_ids_in_the_first_frame(davis: Path, tmp_path: Path, run: Run) -> None:
    write_mask(davis / "Annotations/480p/boat/00000.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    run("propagation", "--sequences", "boat").output()
    assert not read_mask(tmp_path / "out/boat/00003.png").any()


def spoil_inside(davis: Path) -> None:
    """Damage that only decoding finds."""
    path = davis / "JPEGImages/480p/boat/00002.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\xff\xdb")] + content[content.index(b"\xff\xc0") :])


def refused_as_other(run: Run, *options: object, difference: str = "") -> bool:
    mistake = run("propagation", "--sequences", "boat", *options).mistake()
    return "holds masks of other inputs" in mistake and difference in mistake


def test_masks_of_other_inputs_are_not_mixed(davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run) -> None:
    run("propagation", "--sequences", "boat").output()
    assert refused_as_other(run, "--backbone", backbone_files["dinov3"], difference="(other backbone")
    assert refused_as_other(run, "--topk", 3, difference="(settings.topk 5 -> 3)")
    assert refused_as_other(run, "--year", "2016", "--split", "all")
    draw_sequence(davis, "longer", 9, frames=FRAMES + 5)
    run("propagation", "--sequences", "boat").output()
    # Masks of other first masks were kept.
    write_mask(davis / "Annotations/480p/boat/00000.png", np.ones((HEIGHT, WIDTH), np.uint8))
    assert refused_as_other(run, difference="(other first masks)")
    # As runs that began earlier have it.
    manifest = tmp_path / "out/propagation.json"
    manifest.write_text(json.dumps({"inputs_sha256": json.loads(manifest.read_text())["inputs_sha256"]}))
    assert refused_as_other(run, difference="(backbone, data or settings)")


def test_what_stopped_before_its_first_sequence_does_not_hold_its_folder(davis: Path, tmp_path: Path, run: Run) -> None:
    """Another attempt once had to choose another folder, though nothing was in this one."""
    spoil_inside(davis)
    run("propagation", "--sequences", "boat").mistake()
    (tmp_path / "out/.propagation.123.tmp.json").write_text("{")  # as a killed process leaves it
    run("propagation", "--sequences", "cart", "--topk", 3).output()
    assert not list((tmp_path / "out").glob(".propagation*"))
    assert refused_as_other(run)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the lock, which tells the time."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LOCK_FILE)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_finished_sequences_are_kept_and_the_interrupted_one_begins_again(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    run("propagation", "--output", whole).output()
    calls: list[Path] = []

    def write_or_fail(path: Path, mask: Mask) -> None:
        calls.append(path)
        if len(calls) == 8:
            raise OSError(28, "No space left on device")
        write_mask(path, mask)

    monkeypatch.setattr(writing, "write_mask", write_or_fail)
    assert f"cannot use {output / SEQUENCES[1]}: No space left" in run("propagation").mistake()
    finished = {path.name for path in output.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert finished == {SEQUENCES[0]}
    assert not list(output.glob(".*.partial"))
    (output / f".{SEQUENCES[1]}.1.partial").mkdir()  # as a kill leaves it
    before = len(calls)
    run("propagation").output()
    assert len(calls) - before == sum(len(list((output / name).iterdir())) for name in SEQUENCES[1:])
    assert contents(output) == contents(whole)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 9))
def test_every_sequence_has_one_owner_and_the_loads_are_close(lengths: list[int], world_size: int) -> None:
    sequences = sequences_of(lengths)
    shares = [writing.share(sequences, rank, world_size) for rank in range(world_size)]
    assert sorted(item.name for share in shares for item in share) == sorted(item.name for item in sequences)
    loads = [sum(len(item.frames) for item in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)


def test_short_sequences_go_together() -> None:
    shares = [[item.name for item in writing.share(sequences_of([5, 3, 2]), rank, 2)] for rank in (0, 1)]
    assert shares == [["s0"], ["s1", "s2"]]


def test_two_processes_give_what_one_gives(config: DavisConfig, tmp_path: Path) -> None:
    one, two = (replace(config, output=tmp_path / name) for name in ("one", "two"))
    alone = evaluate(one)
    evaluate_in_two("eval.davis.task", two, tmp_path / "processes")
    assert contents(one.output / "masks") == contents(two.output / "masks")
    assert {path.name for path in (two.output / "masks").iterdir()} >= set(SEQUENCES)
    together = read_result(two.output / "result.json")
    assert together.metrics == alone.metrics
    assert (alone.environment.world_size, together.environment.world_size) == (1, 2)


@pytest.mark.long
def test_a_mistake_that_one_process_meets_is_one_line_of_each(config: DavisConfig) -> None:
    """The other one ended with a traceback of gloo's."""
    spoil_inside(config.data)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "eval", "davis"]
    options = ["--backbone", str(config.backbone), "--data", str(config.data), "--output", str(config.output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, *options, "--short_side", "64", "--device", "cpu"]
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, text=True, timeout=300)
    assert ended.returncode != 0
    # Whichever process ends first, the launcher may stop the other before it has said anything.
    assert any(line.startswith("error: ") and "boat/00002.jpg: not a JPEG" in line for line in ended.stderr.splitlines())
    assert "RuntimeError" not in ended.stderr
