"""The same run in one, two and three processes, and on two machines: the same batches, schedules, losses and weights."""

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pretrain.__main__ import main
from tests.pretrain.conftest import bare_run, has_current_environment, logged, weights
from tests.processes import fork, run_as_command, run_group, statuses

BATCH = 6
# Per method, what its run takes besides; of MoBY a smaller step, since AdamW magnifies rounding.
METHODS: dict[str, dict[str, Any]] = {
    "dino": {},
    "selfpatch": {},
    "moby": {"optim__lr": 0.001},
    "moby_selfpatch": {"optim__lr": 0.001, "selfpatch__negatives": True},
    "patch_matching": {},
}
IN_PARTS = ("dino", "selfpatch")
# Batch normalisation takes these of MoBY's heads out again: their gradient is rounding alone, which AdamW makes steps of full size.
BEFORE_NORMALISATION = ("projector.0.bias", "predictor.0.bias")


def train_each(runs: list[list[str]]) -> None:
    """All runs one after the other, in one group."""
    dist.init_process_group("gloo")
    try:
        run_as_command(lambda _: max(main(run) for run in runs), [])
    finally:
        dist.destroy_process_group()  # else gloo's threads may end the process by SIGABRT


def train_own(runs: list[list[str]]) -> None:
    run_as_command(main, runs[int(os.environ["RANK"])])


def run_of(images: Path, output: Path, method: str, **more: Any) -> list[str]:
    options: dict[str, Any] = {"train__batch_size": BATCH, "backbone__drop_path_rate": 0.0} | METHODS[method] | more
    return bare_run(images, output, method, **options)


def assert_same_run(output: Path, reference: Path, method: str) -> None:
    lines, expected_lines = logged(output), logged(reference)
    assert len(lines) == len(expected_lines) == 4
    for line, expected_line in zip(lines, expected_lines, strict=True):
        if method == "patch_matching":
            # For the eye only: the mean over the matches of a process's share, and shares have different numbers of them.
            del line["patch_loss"], expected_line["patch_loss"]
        assert line == pytest.approx(expected_line, abs=1e-4)
        assert (line["lr"], line["weight_decay"]) == (expected_line["lr"], expected_line["weight_decay"])
        assert line["loss"] == pytest.approx(expected_line["loss"], abs=1e-5)
    assert_same_weights(output, reference)


def assert_same_weights(output: Path, reference: Path) -> None:
    expected = weights(reference)
    for name, value in weights(output).items():
        if not name.endswith(BEFORE_NORMALISATION):
            torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=0, msg=name)


@pytest.fixture(scope="module")
def alone(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every method's run in this process, by name."""
    folder = tmp_path_factory.mktemp("alone")
    for method in METHODS:
        assert main(run_of(image_folder, folder / method, method)) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("processes", [pytest.param(2, marks=pytest.mark.long), 3])
def test_any_number_of_processes_computes_the_same(image_folder: Path, tmp_path: Path, alone: Path, processes: int) -> None:
    """Centres, batch normalisation and queues are those of the whole batch; the learning rate follows the whole batch too.

    Of shares in parts, gradients are exchanged once per step, after the last part, whose diagnostics are logged.
    """
    runs = [run_of(image_folder, tmp_path / method, method) for method in METHODS]
    parts = BATCH // processes
    runs += [run_of(image_folder, tmp_path / "parts" / method, method, train__accumulate=parts) for method in IN_PARTS]
    ended, messages = run_group(processes, tmp_path, train_each, runs)
    assert ended == [0] * processes, messages
    for method in METHODS:
        assert_same_run(tmp_path / method, alone / method, method)
    for method in IN_PARTS:
        losses, expected = ([line["loss"] for line in logged(folder / method)] for folder in (tmp_path / "parts", alone))
        assert losses == pytest.approx(expected, abs=1e-5)
        assert_same_weights(tmp_path / "parts" / method, alone / method)


@pytest.mark.slow
@pytest.mark.skipif(not has_current_environment(), reason="tools/pretrain.sh would install first; run tools/setup.sh")
def test_two_machines_compute_the_same(image_folder: Path, tmp_path: Path, alone: Path) -> None:
    """Two starts of the script find each other by torchrun's variables, as on two machines."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    variables = {"NNODES": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port, "NPROC_PER_NODE": "1"}
    command, log = ["bash", "tools/pretrain.sh", *run_of(image_folder, tmp_path / "run", "selfpatch")], tmp_path / "nodes.log"
    nodes = [fork(log, os.execvp, "bash", command, **variables, NODE_RANK=str(node)) for node in range(2)]
    assert statuses(nodes) == [0, 0], log.read_text()
    assert "2 processes" in log.read_text()
    assert_same_run(tmp_path / "run", alone / "selfpatch", "selfpatch")


def test_processes_with_other_lists_of_images_do_not_start(image_folder: Path, tmp_path: Path) -> None:
    """They trained on with other permutations, or waited for each other for ever."""
    other = shutil.copytree(image_folder, tmp_path / "other")
    next(other.rglob("*.jpg")).unlink()
    runs = [run_of(folder, tmp_path / "run", "dino") for folder in (image_folder, other)]
    ended, messages = run_group(2, tmp_path, train_own, runs)
    assert ended == [2, 2]
    assert messages.count("the list of images must be the same for all processes, but is 12 in ") == 2
    assert not (tmp_path / "run/checkpoint.pth").exists()
