"""A run of all tasks that is killed at any moment, again and again, ends as one that nobody disturbed."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from eval.tasks import TASKS
from tests.commands import draw_inputs, eval_all_in_one_process, every_task, files_below, metrics_below, start, statuses

KILLS = 20
UNDER_WAY = {
    "davis": "config.json",
    "detection": "training/training.jsonl",  # the middle of the fine-tuning
    "segmentation": "training/training.jsonl",
    "classification": "config.json",
    "linear_segmentation": "linear.pth",
    "depth": "head.pth",
    "retrieval_segmentation": "patches",
    **dict.fromkeys(("vip", "jhmdb", "retrieval", "copy_detection", "object_discovery"), "config.json"),
}


def wall_times(folder: Path) -> dict[str, float]:
    paths = {task: folder / "runs/toy" / task / "result.json" for task in TASKS}
    return {task: json.loads(path.read_text(encoding="utf-8"))["wall_time_s"] for task, path in paths.items()}


def is_under_way(task: str, folder: Path) -> bool:
    run = folder / "runs/toy" / task
    return (run / UNDER_WAY[task]).exists() and not (run / "result.json").exists()


@pytest.mark.long
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    """Each start of the command is killed at a random moment of the whole, or of a task; when one ends first, a new run begins."""
    data, log, chance = draw_inputs(tmp_path / "data"), tmp_path / "messages.log", random.Random(0)
    for name in ("first", "undisturbed"):  # the first also waits for the imports
        begin = time.monotonic()
        assert statuses(start(eval_all_in_one_process, every_task(data, tmp_path / name), log)) == [0], log.read_text()
        length = time.monotonic() - begin
    wanted, run, lived, killed = tmp_path / "undisturbed", 0, 0.0, Counter[str]()
    lengths = {"all": length, **wall_times(wanted)}
    while True:
        folder = tmp_path / f"killed{run}"
        begin = time.monotonic()
        (process,) = start(eval_all_in_one_process, every_task(data, folder), log)
        missed = [task for task in TASKS if not killed[task]]
        if killed["all"] < KILLS or missed:
            aim = chance.choice(missed or list(lengths))
            while aim != "all" and process.is_alive() and not is_under_way(aim, folder):
                time.sleep(0.02)
            process.join(chance.uniform(0, lengths[aim]))
        else:
            process.join(300)
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            if process.exitcode == -signal.SIGKILL:
                killed.update(["all", *(task for task in TASKS if is_under_way(task, folder))])
        lived += time.monotonic() - begin
        print(
            f"run {run}: {process.exitcode} after {time.monotonic() - begin:.1f} s of {length:.1f} s; killed so far: {killed}"
        )
        if process.exitcode == -signal.SIGKILL:
            continue
        assert process.exitcode == 0, log.read_text()[-3000:]
        assert metrics_below(folder) == metrics_below(wanted)
        assert files_below(folder) == files_below(wanted)
        assert all(0.2 * undisturbed < wall_times(folder)[task] < lived for task, undisturbed in wall_times(wanted).items())
        assert (folder / "results/main.csv").read_text() == (wanted / "results/main.csv").read_text()
        if killed["all"] >= KILLS and all(killed[task] for task in TASKS):
            break
        run, lived = run + 1, 0.0
        assert run < 3 * KILLS, killed
