"""mmengine configs of both tasks: config files by backbone family, what options fill in, overrides, and what a result records.

Every function that takes a config to be filled in changes it in place.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from backbones.base import tap_shape
from backbones.spec import BackboneSpec, ForeignSpec, is_function_name
from common.launch import loader_processes
from eval.openmmlab.backbone import adapted_spec, choose_strides, choose_taps, plain_stride
from eval.openmmlab.operators import quiet_packages
from eval.openmmlab.options import BatchPlan, FineTuningConfig
from eval.record import unpublished
from eval.result import Protocol
from eval.tasks import BENCHMARKS

_BASE_CONFIG = "base"  # the file that a task's other configs inherit
LARGEST_PART = 10  # warming up, and measuring batch norm's statistics, are at most such a part of a run

# Where an override changes the run. Elsewhere the options have been read already, or `eval.openmmlab.finetune` sets the value.
_EFFECTIVE = (
    *("model.", "optim_wrapper.", "param_scheduler.", "train_dataloader.dataset.", "test_dataloader.dataset."),
    "test_evaluator.",
)
_OPTIONS_OF_THEIR_OWN = ("optim_wrapper.accumulative_counts", "optim_wrapper.dtype", "optim_wrapper.type")

_NO_SETTINGS = {"backbone_file", "compile", "in_channels"}  # These change no metric, or follow from the backbone's widths.


def read_family_config(folder: Path, spec: BackboneSpec, head: str = "") -> Config:
    """The config file of a task for a family of backbones, as written: `FAMILY.py`, or `FAMILY_HEAD.py` for another head.

    A network that is none of ours has that of a DINOv3 if all its maps have one stride, else that of a Swin.
    """
    suffix, family = f"_{head}" if head else "", spec.family
    if isinstance(spec, ForeignSpec):
        family = "swin" if plain_stride(spec) is None else "dinov3"
    path = folder / f"{family}{suffix}.py"
    if not path.is_file():
        families = [file.stem.removesuffix(suffix) for file in sorted(folder.glob(f"*{suffix}.py"))]
        known = [family for family in families if family != _BASE_CONFIG and "_" not in family]
        raise ValueError(
            f"there is no {folder.parent.name} config for a {spec.family} backbone{f' with the head {head}' if head else ''}; "
            f"there is one for: {', '.join(known)}"
        )
    return deepcopy(_read_once(path))


@cache  # a config takes a third of a second to read, and several steps of a run ask for it
def _read_once(path: Path) -> Config:
    # mmengine looks for mmseg's files in an installed distribution named mmsegmentation; the maintained successor has another
    # distribution name and the same module name, by which mmengine finds it as well.
    MODULE2PACKAGE["mmseg"] = "mmseg"
    with quiet_packages():
        return Config.fromfile(str(path))


def use_backbone(config: Config, options: FineTuningConfig, spec: BackboneSpec) -> list[int]:
    """Fill in the backbone's entry; returns the widths of its maps. ValueError where it cannot be fine-tuned so."""
    backbone = config.model.backbone
    backbone.backbone_file = str(options.backbone if is_function_name(options.backbone) else options.backbone.resolve())
    backbone.num_heads = options.num_heads
    if options.no_class_token:
        backbone.class_token = False
    backbone.compile = options.compile
    backbone.taps = choose_taps(options.taps, backbone.taps, spec)
    adapted_spec(spec, options.num_heads, not options.no_class_token)  # refuses what cannot be
    if isinstance(spec, ForeignSpec):
        if not spec.size_step:
            side = spec.image_size
            raise ValueError(f"{options.backbone} takes images of {side} x {side} pixels only; fine-tuning takes many sizes")
        backbone.drop_path_rate = 0.0  # which not every network has
    if (strides := choose_strides(spec, backbone.taps)) is not None:
        backbone.strides = strides
    return [tap_shape(spec, tap)[0] for tap in backbone.taps]


def use_data(config: Config, options: FineTuningConfig, batch: BatchPlan, *limits: int | None) -> None:
    """Fill in the data's folder, the loading processes, and how many images training and test take: the first so many, or all."""
    share_bytes = 3 * math.prod(transform_option(config.test_dataloader, "scale")) * batch.total // batch.world_size
    for loader, limit in zip((config.train_dataloader, config.test_dataloader), limits, strict=True):
        loader.num_workers = loader_processes(options.workers, share_bytes, "--workers")
        loader.dataset.data_root = str(options.data.resolve())
        loader.dataset.indices = limit


def transforms(loader: Config, option: str) -> list[Any]:
    """The transforms of a data loader that have an option, those inside a RandomChoice included; may be changed in place."""
    nested = ([entry, *chain.from_iterable(entry.get("transforms", []))] for entry in loader.dataset.pipeline)
    return [entry for entry in chain.from_iterable(nested) if option in entry]


def transform_option(loader: Config, option: str) -> Any:
    """The value of an option that exactly one transform of a data loader has."""
    (entry,) = transforms(loader, option)
    return entry[option]


def use_schedule(config: Config, options: FineTuningConfig, iterations: int, decay: Mapping[str, Any]) -> None:
    """Fill in the length and the schedulers: `decay`, multiplied with a linear rise over the first updates.

    The rise takes as many updates as the user says, else the published number, but at most a tenth of all.
    """
    warmup = options.warmup_iterations
    if warmup is None:
        warmup = min(config.schedule.warmup_iterations, iterations // LARGEST_PART)
    config.schedule.warmup_iterations = warmup
    config.train_cfg.max_iters = iterations
    # A scheduler reaches its last value one iteration before `end`, hence the + 1.
    rise = {"type": "LinearLR", "start_factor": config.schedule.warmup_factor, "begin": 0, "end": warmup + 1}
    config.param_scheduler = [{**entry, "by_epoch": False} for entry in ([rise, decay] if warmup else [decay])]


def finish_config(config: Config, options: FineTuningConfig, batch: BatchPlan, device: torch.device) -> None:
    """Fill in batch, optimiser and precision, and apply the user's overrides last."""
    precision = options.precision
    if device.type == "cpu" and precision not in ("auto", "float32"):
        raise ValueError(f"--precision {precision} needs a GPU; the CPU computes in float32")
    if precision == "auto":
        precision = "float32"
        if device.type != "cpu" and config.get("half_precision", True):
            precision = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if options.scale_lr:
        config.optim_wrapper.optimizer.lr *= batch.total / config.batch.total
    config.batch = asdict(batch)
    config.train_dataloader.batch_size = batch.total // batch.world_size
    wrapper = {**config.optim_wrapper, "type": "OptimWrapper", "accumulative_counts": batch.accumulation}
    if precision != "float32":
        wrapper |= {"type": "AmpOptimWrapper", "dtype": precision}
        # mmengine's default would scale the loss in bfloat16, too, and leave out updates in silence.
        wrapper["loss_scale"] = "dynamic" if precision == "float16" else {"enabled": False}
    config.optim_wrapper = wrapper
    for override in options.override:
        apply_override(config, override)


def lookup(config: Any, path: str) -> Any:
    """The value at a dotted path, such as `model.decode_head.feature_strides.0`; LookupError if there is none."""
    node = config
    for key in path.split("."):
        if isinstance(node, (list, tuple)) and key.isdecimal():
            node = node[int(key)]
        elif isinstance(node, (dict, Config)) and key in node:
            node = node[key]
        else:
            raise LookupError(path)
    return node


def apply_override(config: Config, override: str) -> None:
    """Set one value of a config that is complete otherwise; the override is `dotted.path=value`, the value in YAML.

    ValueError if the config has no such path, which mmengine would add in silence, or the change would have no effect.
    """
    path, separator, text = override.partition("=")
    if not path.startswith(_EFFECTIVE) or path in _OPTIONS_OF_THEIR_OWN:
        raise ValueError(
            f"--override {override!r} would change nothing: only values under {', '.join(_EFFECTIVE)} do; batch, schedule, crops, "
            "precision and workers have options of their own (see --help)"
        )
    parent, _, last = path.rpartition(".")
    try:
        present, node = lookup(config, path), lookup(config, parent)
        value = _parse(text)
    except (LookupError, yaml.YAMLError):
        separator = ""
    if not separator or isinstance(node, tuple):
        raise ValueError(
            f"--override {override!r}: wanted key=value with a key of the config, such as model.test_cfg.mode=whole"
        )
    if isinstance(present, (int, float)) and not isinstance(value, (int, float)):
        raise ValueError(f"--override {override!r}: {path} is a number ({present}), and {text!r} is not")
    node[int(last) if isinstance(node, list) else last] = _typed_like(present, value)


def _parse(text: str) -> Any:
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 takes 1e-3, without a dot, for a string
        except ValueError:
            return value
    return value


def _typed_like(present: Any, value: Any) -> Any:
    """A value from YAML, which knows no tuples and takes 0 for an integer, in the types of the value it replaces.

    Transforms of mmcv insist on them: a scale is a tuple, a probability a float.
    """
    if isinstance(value, list) and isinstance(present, (list, tuple)) and present:
        return type(present)(_typed_like(present[0], item) for item in value)
    if isinstance(present, float) and type(value) is int:
        return float(value)
    return value


def plain(value: Any) -> Any:
    """What is read again where the value is written as JSON: lists instead of tuples, plain dicts."""
    return json.loads(json.dumps(value))


def describe_protocol(
    benchmark: str,
    version: int,
    spec: BackboneSpec,
    settings_of: Callable[[Config, torch.device], dict[str, Any]],
    base: Config,
    config: Config,
    device: torch.device,
    overrides: Iterable[str],
    not_compared: Iterable[str] = (),
) -> Protocol:
    """The protocol of a run on a benchmark, and how it deviates from the published run.

    `settings_of` gives the constants of a config: of `config`, the resolved one, and of `base`, the config file as written, which
    has no value for what only a resolved config knows, such as a data folder. Settings in `not_compared` are no deviations,
    whatever their value.
    """
    published, used = plain(settings_of(base, torch.device("cuda"))), plain(settings_of(config, device))
    deviations = {
        setting: [published.get(setting), value]
        for setting, value in used.items()
        if setting not in not_compared and value != published.get(setting)
    }
    deviations |= unpublished(spec)
    for path in (override.partition("=")[0] for override in overrides):
        try:
            before = lookup(base, path)
        except LookupError:
            before = None
        deviations[path] = plain([before, lookup(config, path)])
    return Protocol(name=BENCHMARKS[benchmark].protocol, version=version, settings=used, deviations=deviations)


def optimiser_settings(config: Config) -> dict[str, Any]:
    """Optimiser, learning rate, its other constants, which parameters weight decay leaves alone, clipping and precision."""
    wrapper = config.optim_wrapper
    rules = wrapper.get("paramwise_cfg") or {}
    undecayed = [name for name, rule in rules.get("custom_keys", {}).items() if rule.get("decay_mult") == 0]
    if rules.get("norm_decay_mult") == 0:
        undecayed.append("norm layers")  # by kind of layer instead of by name
    return {
        "optimiser": wrapper.optimizer.type,
        "learning_rate": wrapper.optimizer.lr,
        **{name: value for name, value in wrapper.optimizer.items() if name not in ("type", "lr")},
        "undecayed": sorted(undecayed),
        "gradient_clipping": wrapper.get("clip_grad"),
        "precision": wrapper.get("dtype", "float32"),
    }


def backbone_settings(config: Config, spec: BackboneSpec) -> dict[str, Any]:
    """How the backbone is used: all options of `BackboneFromFile`."""
    options = config.model.backbone.items()
    settings = {name: value for name, value in options if name not in (*_NO_SETTINGS, "type")}
    heads = settings.pop("num_heads", None) or getattr(spec, "num_heads", None)
    return settings if heads is None else {**settings, "num_heads": heads}


def part_settings(**parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """The constants of a network's parts, as `PART.NAME`; a part that is absent has none."""
    constants = ((f"{part}.{name}", name, value) for part, options in parts.items() for name, value in (options or {}).items())
    return {setting: value for setting, name, value in constants if name not in _NO_SETTINGS}


def batch_settings(config: Config, device: torch.device, has_batch_norm: bool = True) -> dict[str, Any]:
    """Images per update, and images whose statistics batch normalisation shares, where there is any."""
    batch = config.batch
    if not has_batch_norm:
        return {"batch_size": batch.total}
    # Statistics are shared between GPUs (SyncBN), not between processes on the CPU.
    sharing = batch.world_size if device.type == "cuda" else 1
    return {"batch_size": batch.total, "batch_norm_images": batch.per_device * sharing}
