"""Where the C library takes memory from: its own heap, which it keeps, or the system, which hands out pages filled with zeros.

Seen by NumPy's arrays, whose memory comes from `malloc` as that of PyTorch's tensors does, and which are imported in no time.
"""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

CODE = """
import ctypes
import numpy as np
from common.allocation import reuse_freed_memory
{setting}
fields = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"  # of malloc.h's struct mallinfo2
class Statistics(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in fields.split()]
read = ctypes.CDLL(None).mallinfo2
read.restype = Statistics
before = read().hblkhd
array = np.ones({size}, dtype=np.float32)
print((read().hblkhd - before) // 2**20)
"""


def mebibytes_from_the_system(setting: str, floats: int) -> int:
    command = [sys.executable, "-c", CODE.format(setting=setting, size=floats)]
    return int(subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc's")
def test_arrays_of_less_than_32_mebibytes_stay_in_the_heap() -> None:
    assert mebibytes_from_the_system("pass", 2**22) == 16
    assert mebibytes_from_the_system("assert reuse_freed_memory()", 2**22) == 0
    assert mebibytes_from_the_system("assert reuse_freed_memory()", 2**23) == 32
    assert mebibytes_from_the_system("reuse_freed_memory(); assert reuse_freed_memory(2**24)", 2**22) == 16
