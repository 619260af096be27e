"""Peak memory is what a run itself took."""

import subprocess
import sys
from pathlib import Path

import torch

from common.memory import peak_memory_bytes

REPOSITORY = Path(__file__).resolve().parents[2]


def test_peak_memory_is_this_process_alone() -> None:
    """A process that a large one starts does not report its parent's memory (getrusage does)."""
    held = bytearray(600 * 2**20)
    code = "import torch; from common.memory import peak_memory_bytes as p; print(p(torch.device('cpu')))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert len(held) < peak_memory_bytes(torch.device("cpu"))
    assert 50 * 2**20 < int(printed) < peak_memory_bytes(torch.device("cpu"))
