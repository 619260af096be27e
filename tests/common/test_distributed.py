"""Devices, groups of processes, precision and memory."""

import datetime
import logging
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import distributed
from common.distributed import (
    choose_device,
    full_float32,
    gather_from_processes,
    gather_objects,
    hold_folder,
    local_rank,
    mean_over_processes,
    peak_memory_bytes,
    process_group,
    rank,
    require_same,
    sum_over_processes,
    wait_for_all,
    world_size,
)
from tests.processes import ENVIRONMENT, fork, run_group, run_two, statuses

CPU = torch.device("cpu")


@pytest.fixture
def _gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A machine with `count` GPUs, a parameter of the test."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


@pytest.mark.parametrize(
    ("name", "count", "place", "expected"),
    [
        # Under Slurm's --gpus-per-task, each process sees one GPU, its own, whatever its local rank is.
        *((name, 1, 3, "cuda:0") for name in ("auto", "cuda", "cuda:0")),
        # Otherwise processes share the GPUs of a machine.
        *((name, 2, place, f"cuda:{place % 2}") for name in ("auto", "cuda") for place in (0, 1, 2)),
        *((name, 2, 2, name) for name in ("cuda:1", "cpu")),
        ("auto", 0, 0, "cpu"),
    ],
)
@pytest.mark.usefixtures("_gpus")
def test_the_device_of_a_process(monkeypatch: pytest.MonkeyPatch, name: str, place: int, expected: str) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(place))
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("cuda", 0, "device 'cuda': no CUDA device is available here; use cpu or auto"),
        ("cuda:99", 1, "device 'cuda:99': this machine has 1 usable GPUs"),
        ("abacus", 1, "device 'abacus' is not known; use auto, cpu, cuda or cuda:N"),
        ("cuda:x", 1, "is not known"),
        ("cpu:0", 1, "is not known"),
    ],
)
@pytest.mark.usefixtures("_gpus")
def test_devices_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_device(name)


def test_ranks_come_from_torchruns_variables_before_there_is_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (rank(), world_size(), local_rank()) == (0, 1, 0)
    with process_group(CPU):
        assert not torch.distributed.is_initialized()
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert (rank(), world_size(), local_rank()) == (5, 8, 1)


def exchange() -> None:
    with process_group(CPU):
        wait_for_all()
        assert world_size() == 2
        require_same("a", "the recipe")
        message = r"the recipe must be the same for all processes, but is a0 \(process 0\), a1 \(process 1\)$"
        with pytest.raises(ValueError, match=message):
            require_same(f"a{rank()}", "the recipe")
        (total,) = sum_over_processes(torch.tensor([rank() + 1.0]))
        assert total == 3
        assert mean_over_processes({"loss": rank() + 1.0}, CPU) == {"loss": 1.5}
        assert gather_objects(rank()) == [0, 1]
        assert gather_from_processes(torch.arange(6)[rank() :: 2]).tolist() == list(range(6))
        with process_group(CPU):  # in a caller's group there is nothing to join
            wait_for_all()
    assert not torch.distributed.is_initialized()


def test_two_processes_exchange(tmp_path: Path) -> None:
    ended, messages = run_group(2, tmp_path, exchange)
    assert ended == [0, 0], messages


PEER = """
import sys, torch
from common.distributed import process_group, rank, wait_for_all
with process_group(torch.device("cpu")):
    if rank() == 1:
        sys.exit(3)
    try:
        wait_for_all()
    except ValueError as error:
        assert "its own message says why" in str(error)
        open(sys.argv[1], "w").close()
"""


def test_a_process_that_stops_is_noticed_and_its_status_is_the_commands(tmp_path: Path) -> None:
    (tmp_path / "peer.py").write_text(PEER)
    finished = run_two(str(tmp_path / "peer.py"), str(tmp_path / "seen"))
    assert finished.returncode == 3
    assert "Traceback" not in finished.stderr
    assert (tmp_path / "seen").exists()


def test_no_tf32_inside_and_as_before_outside() -> None:
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    assert before[0]  # PyTorch's default, without which there is nothing to do
    with full_float32():
        assert (convolutions.conv.fp32_precision, products.fp32_precision) == ("ieee", "ieee")
    with pytest.raises(ZeroDivisionError), full_float32():
        raise ZeroDivisionError
    assert (convolutions.allow_tf32, products.allow_tf32) == before


def choose_and_print() -> None:
    products = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    for product in products:
        product.fp32_precision = "tf32"
    with full_float32():
        print(*(product.fp32_precision for product in products))
    print(*(product.fp32_precision for product in products))


def test_full_float32_where_a_program_has_chosen_its_precision_by_the_newer_switches(tmp_path: Path) -> None:
    assert statuses([fork(tmp_path / "log", choose_and_print)]) == [0]
    assert (tmp_path / "log").read_text() == "ieee ieee\ntf32 tf32\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_convolutions_on_a_gpu() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 384, 16, 16).requires_grad_(False)
    images_B3HW = torch.randn(1, 3, 64, 64)
    wanted = network.double()(images_B3HW.double())
    with full_float32():
        found = network.float().cuda()(images_B3HW.cuda()).cpu().double()
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)  # TF32 is off by about 1e-3


def test_a_lock_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(ValueError, match=f"^cannot use {tmp_path}/.lock: Is a directory$"), hold_folder(tmp_path):
        pass


def printed_by(code: str, **environment: str) -> str:
    return subprocess.check_output([sys.executable, "-c", code], env={**ENVIRONMENT, **environment}, text=True)


def test_peak_memory_is_this_process_alone() -> None:
    """A process that a large one starts does not report its parent's memory (getrusage does)."""
    held = bytearray(600 * 2**20)
    printed = printed_by("import torch; from common.distributed import peak_memory_bytes as p; print(p(torch.device('cpu')))")
    assert len(held) < peak_memory_bytes(CPU)
    assert 50 * 2**20 < int(printed) < peak_memory_bytes(CPU)


def test_waiting_threads_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import common, os; print(os.environ['OMP_WAIT_POLICY'])"
    assert printed_by(code, OMP_WAIT_POLICY="active") == "active\n"
    monkeypatch.delitem(ENVIRONMENT, "OMP_WAIT_POLICY", raising=False)
    assert printed_by(code) == "passive\n"


def wait_in_vain() -> None:
    logging.basicConfig(format="%(message)s", force=True)
    distributed._PATIENCE_SECONDS, distributed._LONGEST_WAIT = 0.1, datetime.timedelta(seconds=2)
    with pytest.raises(ValueError, match="cannot join") as caught, process_group(CPU):
        pass
    print(caught.value)


def test_a_process_that_waits_says_for_whom(tmp_path: Path) -> None:
    """Variables that another job has left over once made a run wait without a word."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    left_over = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    assert statuses([fork(tmp_path / "log", wait_in_vain, **left_over)]) == [0]
    said = (tmp_path / "log").read_text()
    assert f"process 0 of 2 waits for the others at 127.0.0.1:{port}; start them, or unset RANK" in said
    assert re.search(f"^process 0 of 2 cannot join the others at 127.0.0.1:{port}: .*; unset RANK", said, re.MULTILINE)


def test_variables_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that only knows how many there are cannot wait for the others anywhere."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    message = (
        r"^WORLD_SIZE=2 is set, but not RANK, MASTER_ADDR, MASTER_PORT, .*; start them with torchrun or Slurm, or unset RANK"
    )
    with pytest.raises(ValueError, match=message), process_group(CPU):
        pass
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ValueError, match="is set, but not MASTER_PORT, without"), process_group(CPU):
        pass


@pytest.mark.parametrize(
    ("index", "place", "local", "count"), [(1, 0, 2, 2), (0, 2, 3, 2)], ids=["a number for all", "more processes than GPUs"]
)
@pytest.mark.usefixtures("_gpus")
def test_processes_that_share_a_gpu_are_refused(monkeypatch: pytest.MonkeyPatch, index: int, place: int, local: int) -> None:
    """NCCL ends them by a traceback otherwise; gloo, for the tasks that exchange on the CPU, lets them."""
    processes = {"RANK": place, "LOCAL_RANK": place, "WORLD_SIZE": local, "LOCAL_WORLD_SIZE": local}
    for name, value in {**processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    message = (
        f"^{local} processes on this machine share its GPUs, of which 2 are usable; start at most one for each GPU, and give"
    )
    with pytest.raises(ValueError, match=message), process_group(torch.device("cuda", index)):
        pass
