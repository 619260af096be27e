"""A folder of small images, and the options, batches and results of runs small enough for tests."""

import itertools
import json
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pretrain.config import PretrainConfig, parse_run
from pretrain.data.views import CropBox, view_kinds
from pretrain.networks import Networks
from pretrain.schedules import step_settings
from pretrain.step import training_step
from tests.conftest import REPOSITORY

TINY = {
    "views.global_size": 32,
    "views.local_size": 24,
    "views.local_crops": 2,
    "backbone.embed_dim": 32,
    "backbone.depth": 2,
    "backbone.num_heads": 2,
    "backbone.patch_size": 8,
    "dino.out_dim": 32,
    "dino.hidden_dim": 32,
    "dino.bottleneck_dim": 16,
    "optim.warmup_epochs": 1,
    "optim.lr": 0.02,
    "data.workers": 0,
    "train.batch_size": 4,
    "train.epochs": 2,
    "train.log_every": 1,
    "train.device": "cpu",
    "watch.every": 0,
}


def tiny_run(folder: Path, output: Path, method: str = "selfpatch", **overrides: object) -> list[str]:
    """The command line of a tiny run; overrides as `section__field=value`."""
    options: dict[str, object] = {**TINY, "data.path": folder, "train.output": output, "method": method}
    if "moby" in method:
        options = {name: value for name, value in options.items() if not name.startswith("dino.")}
        options |= {"moby.hidden_dim": 32, "moby.out_dim": 16, "moby.queue": 20, "views.local_crops": 0}
        options["optim.freeze_last_layer_epochs"] = 0
    if method == "selfpatch":
        options["selfpatch.out_dim"] = 16
    options.update({name.replace("__", "."): value for name, value in overrides.items()})
    recipe = "sample_matching" if method == "patch_matching" else f"sample_{method}"
    return [recipe, *(token for name, value in options.items() for token in (f"--{name}", str(value)))]


def bare_run(images: Path, output: Path, method: str = "dino", **overrides: object) -> list[str]:
    """The command line of a tiny run whose recipe, beside its output, names the method alone."""
    output.parent.mkdir(parents=True, exist_ok=True)
    recipe = output.parent / f"{method}.yaml"
    recipe.write_text(f"method: {method}\n")
    return [str(recipe), *tiny_run(images, output, method, **overrides)[1:]]


def tiny_config(
    method: str, folder: Path = Path("images"), output: Path = Path("output"), **overrides: object
) -> PretrainConfig:
    return parse_run(tiny_run(folder, output, method, **overrides))


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of different sizes, two levels deep."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(12):
        height, width = 40 + 3 * index, 60 - 2 * index
        coarse = rng.integers(0, 255, (5, 7, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        path = folder / f"class{index % 3}" / f"{index:02d}.{'png' if index % 4 == 0 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    return folder


def stack_boxes(boxes: Sequence[CropBox]) -> Tensor:
    """int64 [B, 5], as a batch has them."""
    return torch.tensor([list(box) for box in boxes])


def take_step(
    config: PretrainConfig, networks: Networks, images: int, device: str = "cpu", **options: Any
) -> dict[str, Tensor]:
    """A step on random images, whose views lie in different places, past the warm-up and the epochs of frozen layers."""
    kinds = view_kinds(config.views)
    crops = [torch.randn(images, 3, kind.size, kind.size, device=device) for kind in kinds]
    boxes = [
        stack_boxes([CropBox(8 * view, 16 * image, 100, 80 + 4 * image, bool(image % 2)) for image in range(images)])
        for view in range(len(kinds))
    ]
    settings = step_settings(config, 4, 4 * max(1, config.optim.warmup_epochs) + 2)
    return training_step(networks.student, networks, crops, settings, boxes, **options)


def after_step(patch: pytest.MonkeyPatch, number: int, act: Callable[[nn.Module, dict[str, Tensor]], None]) -> None:
    """Let a run's step of this number end with `act(student, losses)`."""
    done = itertools.count(1)

    def step(student: nn.Module, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        losses = training_step(student, *arguments, **options)
        if next(done) == number:
            act(student, losses)
        return losses

    patch.setattr("pretrain.run.training_step", step)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """A limit on a file's size stands for the disk: the same failure of the same system call, in the middle of the file."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def wait_for_steps(process: BaseProcess, output: Path, steps: int) -> None:
    deadline = time.monotonic() + 240
    while not (output / "log.jsonl").exists() or len(logged(output)) < steps:
        assert process.is_alive(), f"ended with status {process.exitcode}"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def logged(output: Path) -> list[dict[str, float]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def weights(output: Path) -> dict[str, Tensor]:
    """What a run's checkpoint has learnt, by name."""
    content = torch.load(output / "checkpoint.pth", weights_only=True)
    return {f"{role}.{name}": value for role in ("student", "teacher", "objective") for name, value in content[role].items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys() != set()
    assert not [name for name, value in found.items() if not torch.equal(value, expected[name])]


def has_current_environment() -> bool:
    """Whether the scripts in tools/ would start at once, without installing anything."""
    stamp, requirements = REPOSITORY / ".venv/.requirements", REPOSITORY / "requirements.txt"
    return stamp.exists() and stamp.read_text().startswith(requirements.read_text().rstrip("\n"))
