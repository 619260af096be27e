"""`--help` of every command answers at once: it loads neither torch nor OpenMMLab, which take seconds."""

import subprocess
import sys

import pytest

from eval.tasks import TASKS
from tests.conftest import REPOSITORY

MODULES = [
    *(f"eval {task}" for task in TASKS),
    *("eval", "eval.davis.scores", "pretrain", "pretrain.monitoring", "tables", "tools.ablation_runner"),
]
SCRIPTS = sorted(path.name for path in (REPOSITORY / "tools").glob("*.py") if "run_command" in path.read_text(encoding="utf-8"))
SLOW = ("torch", "mmcv", "mmengine", "timm", "torchvision", "matplotlib", "scipy", "submitit")

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


@pytest.mark.parametrize("command", [*MODULES, *SCRIPTS])
def test_help_loads_nothing_slow(command: str) -> None:
    name, *arguments = command.split()
    place = ["", f"tools/{name}"] if name.endswith(".py") else [name, ""]
    program = [sys.executable, "-c", PROGRAM % (SLOW,), *place, *arguments, "--help"]
    finished = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "usage:" in finished.stdout
