"""The parts of `benchmarks.gpu` that show whether a device computes what the CPU does; each yields rows of the table."""

import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.collect_env import get_nvidia_driver_version, run

from backbones.build import build_backbone
from backbones.checkpoint import load_checkpoint
from backbones.spec import ResNetSpec
from benchmarks.gpu_run import DATA, GPUConfig, found
from common.distributed import choose_device, full_float32, gather_from_processes, mean_over_processes, sum_over_processes
from common.files import one_line
from common.knn import find_neighbours
from eval.__main__ import main as evaluate
from eval.davis.data import DavisSplit, find_sequences
from eval.probes.features import FrozenFeatures
from eval.propagation.features import FeatureExtractor, input_size, read_frame
from eval.propagation.labels import channel_ids, compete, first_labels
from eval.propagation.masks import read_mask
from eval.propagation.propagator import propagate_sequence
from eval.propagation.protocol import RULES
from eval.record import PACKAGES
from eval.tasks import TASKS
from pretrain.data.views import CropBox, view_kinds
from pretrain.networks import build_networks
from pretrain.run import pretrain
from pretrain.schedules import step_settings
from pretrain.step import seed_step, training_step
from tests.commands import SPEC, task_arguments
from tests.pretrain.conftest import stack_boxes, tiny_config
from tests.toy import write_toy_backbone
from tools.make_sample_data import SampleConfig, draw_samples

LEAST_AGREEMENT = 0.9999  # of all masks' pixels; of recorded masks it is each one's, but those are of a trained network
LOSSES, STEPS, METRICS, BFLOAT16 = 1e-3, 1e-4, 0.5, 0.05

Rows = Iterator[dict[str, Any]]
T = TypeVar("T")


def at_most(what: str, value: float, most: float) -> dict[str, Any]:
    return found(what, f"{value:.2g}", f"at most {most:g}", value <= most)


def finite(what: str, losses: Sequence[float]) -> dict[str, Any]:
    return found(what, ", ".join(f"{loss:.4f}" for loss in losses), "finite", all(map(math.isfinite, losses)))


def largest_difference(losses: Sequence[float], wanted: Sequence[float]) -> float:
    """Relative; NaN where a number of either is."""
    assert len(losses) == len(wanted) > 0
    return float(np.max(np.abs(np.subtract(losses, wanted)) / np.maximum(np.abs(wanted), 1e-12)))


def machine(config: GPUConfig, folder: Path) -> Rows:
    """What results depend on; loads the GPU's libraries, for which the other parts then need not wait."""
    del folder
    device = choose_device(config.device)
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        yield found("GPU", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, one of {torch.cuda.device_count()} here")
        yield found("driver, cuDNN", f"{get_nvidia_driver_version(run)}, {torch.backends.cudnn.version()}")
    yield found("system", f"{platform.platform()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    packages = {package.name: package.version for package in metadata.distributions()}
    yield found("versions", ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages))
    images_B3HW = torch.randn(1, 3, 64, 64, device=device)
    torch.conv2d(images_B3HW, images_B3HW[:, :, :16, :16]) @ images_B3HW[0, 0, :49]


def sample_data(config: GPUConfig, folder: Path) -> Rows:
    """Sixteen frames fill the context of label propagation."""
    del folder
    images = 4 if config.tiny else 32
    data = config.output / DATA
    draw_samples(SampleConfig(output=data, train_images=images, val_images=2, frames=16, photos=16, class_images=2))
    yield found("sample data", str(data))


def on_both(config: GPUConfig, folder: Path, do: Callable[..., T], *arguments: Any) -> tuple[T, T]:
    """What `do(device, folder, *arguments)` gives on the device, and on the CPU in another process at the same time."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:  # before this process has used the GPU
        theirs = pool.submit(do, "cpu", folder / "cpu", *arguments)
        return do(config.device, folder / "device", *arguments), theirs.result()


@full_float32()
def run_task(device: str, folder: Path, task: str, data: Path, family: str = "vit", options: Sequence[str] = ()) -> Path:
    """The output folder of a task on sample data, by a small network with random weights; devices need draw nothing."""
    folder.mkdir(parents=True)
    backbone = write_toy_backbone(folder, ResNetSpec(layers=(1, 1, 1, 1)) if family == "resnet" else SPEC)
    arguments = task_arguments(task, backbone, data, folder / "output", "--device", device, *options)
    if TASKS[task].fine_tunes:
        arguments += [] if "--override" in arguments else ["--override"]
        arguments += ["model.backbone.drop_path_rate=0.0"]
        # At the published rate, random weights of a ResNet multiply rounding by a million in four updates.
        arguments += ["optim_wrapper.optimizer.lr=1e-4"] if family == "resnet" else []
        arguments += ["model.decode_head.dropout_ratio=0.0"] if task == "segmentation" else []
    evaluate(arguments)
    return folder / "output"


def logged_losses(output: Path) -> list[float]:
    (log,) = output.rglob("training.jsonl")
    return [json.loads(line)["loss"] for line in log.read_text(encoding="utf-8").splitlines()]


def task(config: GPUConfig, folder: Path, name: str, family: str = "vit") -> Rows:
    """A task in float32 on both devices: masks where it makes some, losses where it trains a network, metrics."""
    options = ("--precision", "float32") if TASKS[name].fine_tunes else ()
    ours, theirs = on_both(config, folder, run_task, name, config.output / DATA, family, options)
    if masks := sorted(path.relative_to(theirs) for path in theirs.glob("masks/**/*.png")):
        equal = np.concatenate([(read_mask(ours / path) == read_mask(theirs / path)).ravel() for path in masks]).mean()
        wanted = f"at least {LEAST_AGREEMENT}"
        yield found(f"share of equal pixels of {len(masks)} masks", f"{equal:.6f}", wanted, equal >= LEAST_AGREEMENT)
    if TASKS[name].fine_tunes:
        yield at_most("losses: relative difference", largest_difference(logged_losses(ours), logged_losses(theirs)), LOSSES)
    if family == "resnet":
        yield at_most("batch norm's statistics: relative difference", distance(*map(statistics, (ours, theirs))), LOSSES)
    metrics, others = (json.loads((output / "result.json").read_text())["metrics"] for output in (ours, theirs))
    # Percent are compared in points, metres and fractions in hundredths.
    scales = {key: 1 if metric["unit"] == "percent" else 100 for key, metric in metrics.items()}
    pairs = {key: (metrics[key]["value"], others[key]["value"]) for key in metrics}
    differences = [
        math.inf if None in pair else scales[key] * abs(pair[0] - pair[1])
        for key, pair in pairs.items()
        if pair != (None, None)
    ]
    yield at_most(f"{len(differences)} metrics: difference in hundredths", max(differences), METRICS)


def statistics(output: Path) -> dict[str, torch.Tensor]:
    """What precise batch norm has measured after the last update."""
    (checkpoint,) = output.rglob("iter_*.pth")
    weights = load_checkpoint(checkpoint)["state_dict"]
    return {name: tensor for name, tensor in weights.items() if name.endswith((".running_mean", ".running_var"))}


def distance(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> float:
    """The length of the difference of all tensors together, by that of the wanted ones."""
    differences, lengths = (
        torch.stack([values.double().square().sum() for values in of])
        for of in ([tensors[name].double() - wanted[name].double() for name in wanted], wanted.values())
    )
    return float((differences.sum() / lengths.sum()).sqrt())


def losses_of(config: GPUConfig, folder: Path, name: str, *options: str) -> list[float]:
    return logged_losses(run_task(config.device, folder, name, config.output / DATA, options=options))


def half_precision(config: GPUConfig, folder: Path, name: str) -> Rows:
    precision = "bfloat16" if config.device == "cuda" else "float32"  # the tasks have no other on a CPU
    yield finite(f"losses in {precision}", losses_of(config, folder / "task", name, "--precision", precision))


def compiled_task(config: GPUConfig, folder: Path, name: str) -> Rows:
    compiled, plain = (
        losses_of(config, folder / choice, name, "--precision", "float32", "--compile", choice) for choice in ("true", "false")
    )
    yield at_most("losses: relative difference from those without", largest_difference(compiled, plain), LOSSES)


def neighbours(device: str, folder: Path) -> torch.Tensor:
    del folder
    generator = torch.Generator().manual_seed(0)
    bank_ND, queries_TD = (torch.randn(count, 384, generator=generator) for count in (10_000, 200))
    return find_neighbours(queries_TD, bank_ND, 20, choose_device(device)).indices_Tk


def ranks(config: GPUConfig, folder: Path) -> Rows:
    ours, theirs = on_both(config, folder, neighbours)
    yield at_most(f"ranks of {theirs.numel()} nearest neighbours that differ", int((ours != theirs).sum()), 0)


@full_float32()
def three_steps(device_name: str, folder: Path, method: str, precision: str = "float32", student: str = "") -> list[float]:
    """The losses of three steps on the same crops; the student may be `compiled`, or in a process group of its own (`ddp`)."""
    del folder
    device = choose_device(device_name)
    config = tiny_config(method, backbone__drop_path_rate=0.0, train__precision=precision)
    networks, kinds, losses = build_networks(config, device), view_kinds(config.views), []
    trained: nn.Module = networks.student
    if student == "compiled":
        for network in (networks.student, networks.teacher):
            network.compile(dynamic=False)
    elif student == "ddp":
        trained = DistributedDataParallel(trained, device_ids=[device.index] if device.type == "cuda" else None)
    places = [(8 * view, 16 * image, 100, 80, bool(image % 2)) for view in range(len(kinds)) for image in range(4)]
    boxes = stack_boxes([CropBox(*place) for place in places]).split(4)
    for step in range(3):
        seed_step(0, step)
        crops = [torch.randn(4, 3, kind.size, kind.size).to(device) for kind in kinds]
        now = step_settings(config, 4, 4 * max(1, config.optim.warmup_epochs) + step)
        losses.append(training_step(trained, networks, crops, now, boxes)["loss"].item())
    return losses


def pretraining(config: GPUConfig, folder: Path, method: str) -> Rows:
    ours, theirs = on_both(config, folder, three_steps, method)
    yield at_most("losses of three steps: relative difference", largest_difference(ours, theirs), STEPS)
    yield finite("losses in bfloat16", three_steps(config.device, folder, method, "bfloat16"))


def compiled_pretraining(config: GPUConfig, folder: Path, method: str) -> Rows:
    ours, theirs = (three_steps(config.device, folder, method, student=student) for student in ("compiled", ""))
    yield at_most("losses of three steps: relative difference from those without", largest_difference(ours, theirs), LOSSES)


def resume(config: GPUConfig, folder: Path) -> Rows:
    """A run of two epochs beside one that begins with the first's checkpoint after an epoch."""
    options = {"train__device": config.device, "train__precision": "float32"}
    photos, first = config.output / DATA / "photos", folder / "first"
    whole = load_checkpoint(pretrain(tiny_config("selfpatch", photos, first, **options)))
    (half_way, _) = sorted(first.glob("checkpoint_step*.pth"))
    again = pretrain(tiny_config("selfpatch", photos, folder / "second", **options, train__resume=half_way))
    resumed = load_checkpoint(again)
    # Not tensor by tensor: biases of keys have no gradient but rounding, from which Adam makes whole steps.
    for network in ("student", "teacher"):
        yield at_most(f"{network}'s weights: relative difference", distance(resumed[network], whole[network]), STEPS)


def one_process_group(config: GPUConfig, folder: Path) -> Rows:
    """A group of one process exchanges by NCCL; SyncBN, which torch has for GPUs alone, then is batch normalisation."""
    device = choose_device(config.device)
    alone = three_steps(config.device, folder, "moby")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
    values = torch.arange(6.0, device=device).view(3, 2)
    (summed,) = sum_over_processes(values.clone())
    mean = mean_over_processes({"value": 2.5}, device)["value"]
    same = bool(torch.equal(summed, values) and torch.equal(gather_from_processes(values), values) and mean == 2.5)
    yield found(f"{backend}: sum, gather, mean", "unchanged" if same else "changed", "unchanged", same)
    grouped = three_steps(config.device, folder, "moby", student="ddp")
    yield at_most("losses of MoBY in DistributedDataParallel from those alone", largest_difference(grouped, alone), STEPS)
    norm = nn.SyncBatchNorm(8) if device.type == "cuda" else nn.BatchNorm2d(8)
    images_BCHW = torch.randn(4, 8, 5, 5)
    ours, theirs = norm.to(device)(images_BCHW.to(device)).cpu(), nn.BatchNorm2d(8)(images_BCHW)
    what = f"{type(norm).__name__} of one process, for which torch normalises the batch, from BatchNorm2d"
    yield at_most(what, float((ours - theirs).abs().max()), STEPS)
    dist.destroy_process_group()


@torch.no_grad()
def autocast(config: GPUConfig, folder: Path) -> Rows:
    del folder
    device = choose_device(config.device)
    torch.manual_seed(0)
    network, images_B3HW = build_backbone(SPEC), torch.randn(4, 3, 64, 64)
    (exact,), (rounded,) = (FrozenFeatures(network, device, autocast=dtype)(images_B3HW) for dtype in (None, torch.bfloat16))
    length, wanted = float((rounded - exact).norm() / exact.norm()), f"more than 0, at most {BFLOAT16}"
    yield found("bfloat16 from float32: relative length", f"{length:.2g}", wanted, 0 < length <= BFLOAT16)


@torch.inference_mode()
def no_synchronisation(config: GPUConfig, folder: Path) -> Rows:
    """Past the first labels, which come from the CPU; with more frames than any protocol keeps."""
    del folder
    device = choose_device(config.device)
    (sequence, *_) = find_sequences(DavisSplit(root=config.output / DATA / "DAVIS"), all_masks=False)
    extract, mask = FeatureExtractor(build_backbone(SPEC), None, device), sequence.first_mask()
    for protocol, rules in RULES.items():
        size, ids = input_size(*sequence.size, rules, extract.input_multiple), channel_ids(mask, rules)
        images = [read_frame(path, size, rules).to(device) for path in sequence.frames]
        frames = images[:4] if config.tiny else 2 * images
        labels = propagate_sequence(frames, partial(first_labels, mask, input_size=size, rules=rules, ids=ids), extract, rules)
        first = next(labels)
        try:
            with synchronisation_refused(device):
                for labels_hwC in labels:
                    compete(labels_hwC, rules, extract.stride, sequence.size)
            yield found(f"{protocol}, {len(frames)} frames", "none" if first.is_cuda else "nothing to wait for", "none", True)
        except RuntimeError as error:
            yield found(f"{protocol}, {len(frames)} frames", one_line(str(error), 300), "none", False)


@contextmanager
def synchronisation_refused(device: torch.device) -> Iterator[None]:
    """RuntimeError where the block waits for a GPU; first shows that torch would notice."""
    if device.type == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        with suppress(RuntimeError):
            torch.ones(1, device=device).item()
            raise AssertionError("torch does not notice synchronisation")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
