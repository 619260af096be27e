"""Commands on small data, in processes that begin at once."""

import importlib
import json
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from backbones.build import build_backbone
from backbones.spec import ViTSpec
from eval.tasks import TASKS
from tests.processes import CONTEXT, fork, run_as_command
from tests.processes import statuses as statuses
from tests.toy import write_toy_backbone
from tools.make_sample_data import SampleConfig, draw_samples

SPEC = ViTSpec(embed_dim=64, depth=4, num_heads=1, patch_size=16, image_size=64, class_token=False, final_norm=False)
Main = Callable[[Sequence[str]], int | None]

# These options change only sizes and schedules.
SHORT = {
    "davis": "--jobs 1",
    "detection": "--iterations 4 --checkpoint-interval 2 --batch-size 2 --short-side 96 --workers 0 --override "
    "model.train_cfg.rcnn.sampler.num=16 model.train_cfg.rpn_proposal.max_per_img=50 model.test_cfg.rpn.max_per_img=50 "
    "model.test_cfg.rcnn.max_per_img=10",
    "segmentation": "--iterations 4 --checkpoint-interval 2 --batch-size 2 --crop 64 --train-short-side 64 --test-short-side 64 "
    "--workers 0",
    "linear_segmentation": "--iterations 4 --checkpoint-interval 2 --evaluate-every 2 --batch-size 2 --size 64 --workers 0",
    "depth": "--iterations 4 --checkpoint-interval 2 --batch-size 2 --crop 64 64 --workers 0",
    "retrieval_segmentation": "--input-size 64 --memory-size 100 --pictures 1 --workers 0",
    **dict.fromkeys(("retrieval", "copy_detection"), "--image-size 64 --workers 0"),
    "object_discovery": "--draw-images 1 --workers 0",
    "vip": "--jobs 1",
    "jhmdb": "",
    "classification": "--neighbours 4 8 --resize 64 --crop 64 --workers 0 --epochs 2 --batch_size 8",
}


def draw_inputs(folder: Path, frames: int = 4) -> Path:
    """Sample data for all tasks, and a network with random weights as a checkpoint `toy.pth` and as `toy.safetensors`."""
    draw_samples(SampleConfig(output=folder, train_images=4, val_images=2, frames=frames, photos=2, class_images=2))
    write_toy_backbone(folder, SPEC)
    torch.save(build_backbone(SPEC).state_dict(), folder / "toy.pth")
    return folder


def task_arguments(task: str, backbone: Path, data: Path, output: Path, *options: str) -> list[str]:
    places = ["--backbone", str(backbone), "--data", str(data / TASKS[task].folder), "--output", str(output)]
    return [task, *places, "--device", "cpu", *options, *SHORT[task].split()]


def every_task(data: Path, folder: Path, tasks: Sequence[str] = tuple(TASKS), checkpoint: Path | None = None) -> list[str]:
    """The arguments of `tools/eval_all.py` that run every task, or some, below `folder`, of the data's checkpoint unless given."""
    checkpoint = checkpoint or data / "toy.pth"
    places = [str(checkpoint), "--data", str(data), "--runs", str(folder / "runs"), "--results", str(folder / "results")]
    short = [f"--{task}.{word[2:]}" if word[:2] == "--" else word for task in tasks for word in SHORT[task].split()]
    return [*places, "--tasks", ",".join(tasks), *short, *(part for task in tasks for part in (f"--{task}.device", "cpu"))]


def eval_all_in_one_process(argv: Sequence[str]) -> int:
    """`tools/eval_all.py`, whose tasks run in this process, so that nothing waits for imports."""
    command: Any = importlib.import_module("tools.eval_all")
    command._run = lambda task, arguments: importlib.import_module("eval.__main__").main([task, *arguments])
    return int(command.main(argv))


def start(main: Main, arguments: Sequence[object], *logs: Path, **variables: str) -> list[BaseProcess]:
    """Start a command's `main` at the same moment once for each of `logs`, to which what it prints is added."""
    gate = CONTEXT.Barrier(len(logs) + 1)
    processes = [fork(log, _at_once, gate, main, arguments, **variables) for log in logs]
    gate.wait()
    return processes


def _at_once(gate: Barrier, main: Main, arguments: Sequence[object]) -> None:
    gate.wait()
    run_as_command(main, arguments)


def metrics_below(folder: Path) -> dict[str, Any]:
    """The metrics of every result, by the path of its folder."""
    paths = {path.parent.relative_to(folder).as_posix(): path for path in folder.rglob("result.json")}
    return {name: json.loads(path.read_text(encoding="utf-8"))["metrics"] for name, path in sorted(paths.items())}


def files_below(folder: Path) -> list[str]:
    """All files but those which every start names after its time: the logs of mmengine and TensorBoard."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not path.endswith(".log") and "/events.out" not in path)
