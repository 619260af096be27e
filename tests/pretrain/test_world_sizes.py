"""The same run in one, two and three processes, and on two machines: the same batches, schedules, losses and weights."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.__main__ import main
from tests.pretrain.conftest import ENVIRONMENT, REPOSITORY, bare_run, has_current_environment, logged, start, weights

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

EACH_RUN = """
import json, sys
import torch.distributed as dist
from common.cli import run_command
from pretrain.__main__ import main
dist.init_process_group("gloo")  # one for all runs: a second one would find what the first left in the launcher's store
try:
    run_command(lambda argv: max(main(run) for run in json.loads(argv[0])))
finally:
    dist.destroy_process_group()  # else gloo's threads may end the process by SIGABRT
"""

OWN_RUN = """
import json, os
from common.cli import run_command
from pretrain.__main__ import main
run_command(lambda argv: main(json.loads(argv[0])[int(os.environ["RANK"])]))
"""


def run_of(images: Path, output: Path, method: str, **more: Any) -> list[str]:
    options: dict[str, Any] = {"train__batch_size": BATCH, "backbone__drop_path_rate": 0.0} | METHODS[method] | more
    return bare_run(images, output, method, **options)


def launch(processes: int, runs: list[list[str]], folder: Path, program: str = EACH_RUN) -> subprocess.CompletedProcess[str]:
    """All runs one after the other in the same processes, which saves starting them for each."""
    script = folder / "program.py"
    script.write_text(program)
    torchrun = [sys.executable, "-m", "common.launch", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*torchrun, str(script), json.dumps(runs)], cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=400
    )


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
    finished = launch(processes, runs, tmp_path)
    assert finished.returncode == 0, finished.stderr
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
    command = ["bash", "tools/pretrain.sh", *run_of(image_folder, tmp_path / "run", "selfpatch")]
    nodes = [start(command, **variables, NODE_RANK=str(node)) for node in range(2)]
    messages = [node.communicate(timeout=200)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], messages
    assert "2 processes" in messages[0] + messages[1]
    assert_same_run(tmp_path / "run", alone / "selfpatch", "selfpatch")


def test_processes_with_other_lists_of_images_do_not_start(image_folder: Path, tmp_path: Path) -> None:
    """They trained on with other permutations, or waited for each other for ever."""
    other = shutil.copytree(image_folder, tmp_path / "other")
    next(other.rglob("*.jpg")).unlink()
    runs = [run_of(folder, tmp_path / "run", "dino") for folder in (image_folder, other)]
    finished = launch(2, runs, tmp_path, OWN_RUN)
    assert finished.returncode == 2
    assert "the list of images must be the same for all processes, but is 12 in " in finished.stderr
    assert not (tmp_path / "run/checkpoint.pth").exists()
