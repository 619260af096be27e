"""Freed memory comes back without a visit to the system."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc's")
def test_freed_memory_is_reused() -> None:
    """A large block that was freed comes back without new pages; without the option each one costs thousands of page faults."""
    code = (
        "import resource, torch; from common.allocation import reuse_freed_memory; {}\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(4): torch.ones(2**23)\n"
        "before = faults()\n"
        "for _ in range(4): torch.ones(2**22)\n"
        "print(faults() - before)"
    )

    def page_faults(setting: str) -> int:
        command = [sys.executable, "-c", code.format(setting)]
        return int(subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout)

    assert page_faults("reuse_freed_memory()") < page_faults("pass") / 10
