"""`--help` of every command answers at once: it loads neither torch nor OpenMMLab, which take seconds."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from eval.tasks import TASKS
from tests.conftest import REPOSITORY

MODULES = [
    *(f"eval {task}" for task in TASKS),
    *("eval", "eval.davis.scores", "pretrain", "pretrain.monitoring", "tables", "tools.ablation_runner"),
]
SCRIPTS = sorted(path.name for path in (REPOSITORY / "tools").glob("*.py") if "run_command" in path.read_text(encoding="utf-8"))
SLOW = ("torch", "mmcv", "mmengine", "timm", "torchvision", "matplotlib", "scipy", "submitit")

MISTAKES = [
    "pretrain sample_dino --train.device gpu",
    "pretrain sample_dino --data.kind foldr",
    "pretrain sample_dino --data.path nowhere",
    "pretrain sample_dino --data.path pretrain --watch.knn_train nowhere --watch.knn_val pretrain",
    "pretrain.monitoring --checkpoint nowhere --images pretrain --output out",
    "eval_all.py nowhere.pth",
    "eval_all.py README.md --format nothing",
    "eval_all.py README.md --name ../x",
    "ablation.py components --only nothing",
    "ablation.py components --pretraining train.epoch=3",
    "ablation.py components --evaluation protocl=fixed",
    "ablation.py components --data nowhere",
    "convert_checkpoint.py",
    "convert_checkpoint.py nowhere.pth",
    "convert_checkpoint.py README.md --format nothing",
]

# Each command in a fork of one process that has loaded no more than all of them do.
PROGRAM = """
import json, os, runpy, sys, tempfile
import common.cli

slow, commands = json.load(sys.stdin)

def run(place, arguments):
    sys.argv = [place, *arguments]
    try:
        if place.endswith(".py"):
            sys.path.insert(0, "tools")
            runpy.run_path(f"tools/{place}", run_name="__main__")
        else:
            runpy.run_module(place, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code

def outcome(command):
    place, *arguments = command.split()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not (child := os.fork()):
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            status = run(place, arguments) or 0
            print("loaded", *(name for name in slow if name in sys.modules), file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), err.seek(0)
        return status, out.read(), err.read()

assert not set(slow) & set(sys.modules)
json.dump({command: outcome(command) for command in commands}, sys.stdout)
"""


def outcomes(commands: Sequence[str]) -> dict[str, tuple[int, str, str]]:
    """Status and outputs of each command; after its own words, standard error names what is slow and was loaded."""
    program = [sys.executable, "-c", PROGRAM]
    given = json.dumps([SLOW, commands])
    ended = subprocess.run(program, cwd=REPOSITORY, input=given, capture_output=True, text=True, check=True, timeout=100)
    return {command: tuple(found) for command, found in json.loads(ended.stdout).items()}


def test_help_loads_nothing_slow() -> None:
    found = outcomes([f"{command} --help" for command in (*MODULES, *SCRIPTS)])
    assert {name: one for name, one in found.items() if (one[0], one[2], "usage:" in one[1]) != (0, "loaded\n", True)} == {}
    assert len(found) == len(MODULES) + len(SCRIPTS) > 15


def test_mistakes_load_nothing_slow() -> None:
    found = outcomes(MISTAKES)
    one_line = re.compile("error: .*\nloaded\n")
    assert {name: one for name, one in found.items() if one[:2] != (2, "") or not one_line.fullmatch(one[2])} == {}
    assert len(found) == len(MISTAKES)


@pytest.mark.parametrize("script", sorted((REPOSITORY / "tools").glob("*.sh")), ids=lambda path: path.name)
def test_cdpath_leads_no_script_astray(script: Path, tmp_path: Path) -> None:
    """`cd tools/..` once went to the folder of that name below $CDPATH, and printed it."""
    (tmp_path / "clone/tools/lib").mkdir(parents=True)
    (tmp_path / "other/tools").mkdir(parents=True)
    (tmp_path / "clone/tools/lib/environment.sh").write_text("pwd; exit 0\n")
    shutil.copy(script, tmp_path / "clone/tools")
    environment = {**os.environ, "CDPATH": str(tmp_path / "other")}
    command = ["bash", f"tools/{script.name}"]
    printed = subprocess.run(
        command, cwd=tmp_path / "clone", env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert printed == f"{tmp_path / 'clone'}\n"


def test_modules_are_found_without_the_working_directory(tmp_path: Path) -> None:
    """PYTHONSAFEPATH keeps it out of Python's path; the environment names the clone instead."""
    packages = tmp_path / ".venv/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    command = f"source {REPOSITORY}/tools/lib/environment.sh && add_modules && add_modules"
    subprocess.run(["bash", "-euc", command], cwd=tmp_path, check=True)
    assert (packages / "patchbench.pth").read_text() == f"{tmp_path}\n"
