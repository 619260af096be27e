"""`--help` of every command answers at once: it loads neither torch nor OpenMMLab, which take seconds."""

import os
import shutil
import subprocess
import sys
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

PROGRAM = """
import runpy, sys
module, script, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_path(script, run_name="__main__") if script else runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    status = end.code
sys.stderr.write(" ".join(name for name in %r if name in sys.modules))
sys.exit(status)
"""


def started(command: str) -> subprocess.CompletedProcess[str]:
    """A command that has ended; after its own words, standard error names what is slow and was loaded."""
    name, *arguments = command.split()
    place = ["", f"tools/{name}"] if name.endswith(".py") else [name, ""]
    program = [sys.executable, "-c", PROGRAM % (SLOW,), *place, *arguments]
    return subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("command", [*MODULES, *SCRIPTS])
def test_help_loads_nothing_slow(command: str) -> None:
    finished = started(f"{command} --help")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "usage:" in finished.stdout


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_load_nothing_slow(command: str) -> None:
    finished = started(command)
    message, _, loaded = finished.stderr.partition("\n")
    assert (finished.returncode, finished.stdout, message[:7], loaded) == (2, "", "error: ", "")


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
