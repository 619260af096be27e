"""Every tool answers `--help` without loading a framework, with the sentence under each field."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

HELP = """
import runpy, sys
tool, sys.argv = sys.argv[1], [sys.argv[1], "--help"]
try:
    runpy.run_path(tool, run_name="__main__")
except SystemExit as ended:
    assert not ended.code
loaded = [name for name in ("torch", "mmengine", "numpy", "matplotlib") if name in sys.modules]
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    ("tool", "sentence"),
    [
        ("eval_all", "Results go to RUNS/NAME/TASK/result.json."),
        ("ablation", "Only these rows, by their names"),
        ("check_data", "Decode every file instead of looking at its header"),
        ("make_sample_data", "Frames of each of the two DAVIS sequences."),
        ("fetch_checkpoint", "Show the table instead."),
        ("convert_checkpoint", "An image to run through the backbone"),
    ],
)
def test_help_loads_no_framework(tool: str, sentence: str) -> None:
    command = [sys.executable, "-c", HELP, f"tools/{tool}.py"]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert sentence in " ".join(finished.stdout.replace("│", " ").split())
