"""A fine-tuning task from its options to its result: continues after a kill, never trains a finished run again."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed
from mmengine.config import Config

from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from common.distributed import choose_device, full_float32, process_group, rank
from common.files import parse_json, write_text_atomically
from eval.findings import refuse
from eval.openmmlab.operators import quiet_packages
from eval.openmmlab.options import FineTuningConfig
from eval.openmmlab.plots import draw_curves, list_predictions
from eval.openmmlab.runner import (
    CHECKPOINT_NAME,
    CONFIG_FILE,
    LOG_FILE,
    FineTuningRunner,
    JsonConfig,
    ProgressHook,
    StopHook,
    list_checkpoints,
)
from eval.record import Evaluation, Inputs, differences
from eval.result import Metric, Protocol, Result, write_result

logger = logging.getLogger(__name__)

WORK_FOLDER = "training"
RUN_FILE = "run.json"
_FUSED_ON_CPU = ("Adam", "AdamW", "SGD")

OptionsT = TypeVar("OptionsT", bound=FineTuningConfig)


class Prepared(NamedTuple):
    """A run whose options and data fit each other.

    `config` is a full iteration-based mmengine config with an InfiniteSampler for training; `complete_config` adds hooks,
    visualisation, device, seeds and resuming.
    """

    config: Config
    protocol: Protocol
    splits: Mapping[str, Any]  # the task's own, `train` and `test`; their `check_files()` takes a while

    def refuse_damage(self, data: Path) -> None:
        """Raise ValueError if a file of the data set, in the folder `data`, cannot be used."""
        refuse([finding for split in self.splits.values() for finding in split.check_files()], data)


Prepare = Callable[[OptionsT, BackboneSpec, torch.device], Prepared]
"""Checks data and options and resolves the config; raises ValueError for a user's mistake."""


def check(options: OptionsT, spec: BackboneSpec, prepare: Prepare[OptionsT]) -> None:
    """Find a user's mistakes before anything heavy starts; raises ValueError."""
    prepare(options, spec, choose_device(options.device)).refuse_damage(options.data)


def evaluate(task: str, options: OptionsT, prepare: Prepare[OptionsT], artefacts: Mapping[str, str]) -> Result:
    """Run a task, or what is left of it; a finished task with the same inputs is only read. Under torchrun, every process calls this.

    `artefacts` are the files that the config's test evaluator writes; it returns the metrics, and by the name `breakdown` those of
    each class. ValueError for a user's mistake or a training that has diverged; Interrupted after a signal during the training, of
    which an update was finished and saved.
    """
    device = choose_device(options.device)
    backbone = read_backbone_file(options.backbone)
    prepared = prepare(options, backbone.spec, device)
    datasets = {role: split.describe() for role, split in prepared.splits.items()}
    evaluation = Evaluation(task=task, options=options, backbone=backbone, protocol=prepared.protocol, datasets=datasets)
    with process_group(device), evaluation.begun() as finished:
        if finished is not None:
            return finished
        if rank() == 0:
            prepared.refuse_damage(options.data)
        start = time.monotonic()
        work_dir = options.output / WORK_FOLDER
        _begin(work_dir, evaluation.inputs)
        config = complete_config(prepared.config, options, device)
        metrics = _train_and_test(config, work_dir)
        breakdown = metrics.pop("breakdown")
        final = CHECKPOINT_NAME.format(config.train_cfg.max_iters)
        result = evaluation.record(
            {name: Metric(value=float(value)) for name, value in metrics.items()},
            breakdown,
            {
                "checkpoint": f"{WORK_FOLDER}/{final}",
                "training_log": f"{WORK_FOLDER}/{LOG_FILE}",
                "openmmlab_config": f"{WORK_FOLDER}/{CONFIG_FILE}",
                **artefacts,
                **draw_curves(options.output, WORK_FOLDER),
                **(list_predictions(options.output) if options.draw_images else {}),
            },
            device,
            start,
            further_config={"batch": {**config.batch, "accumulation": config.optim_wrapper.accumulative_counts}},
        )
        if rank() == 0:
            for path in list_checkpoints(work_dir).values():
                if path.name != final:
                    path.unlink()
            write_result(options.output, result)
        return result


def _begin(work_dir: Path, inputs: Inputs) -> None:
    """Mark the folder as this run's, or make sure that it already is."""
    path = work_dir / RUN_FILE
    if path.exists():
        try:
            begun = parse_json(path.read_text(encoding="utf-8"))["inputs"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: damaged ({error}); remove {work_dir} to train anew") from error
        if begun != inputs:
            raise ValueError(
                f"{work_dir} holds an unfinished run with other inputs ({differences(begun, inputs)}); "
                "choose another --output or remove the folder"
            )
    elif rank() == 0:
        write_text_atomically(path, json.dumps({"inputs": inputs}, indent=1) + "\n")


def _train_and_test(config: Config, work_dir: Path) -> dict[str, Any]:
    """What the test evaluator returns after the last update; continues from the newest checkpoint, if there is one."""
    found = list_checkpoints(work_dir)
    trained = config.train_cfg.max_iters in found
    if found:
        config.load_from, config.resume = str(found[max(found)]), not trained
        logger.info("continuing from %s", config.load_from)
    with quiet_packages():
        runner = FineTuningRunner.from_cfg(config)
        hooks = {type(hook): hook for hook in runner.hooks}
        runner._test_loop = runner.build_test_loop(runner._test_loop)  # finds what is wrong with its data before the training
        try:
            if not trained:
                with hooks[StopHook].stop:  # before the workers start, which take over how signals are handled
                    runner.train()
            torch.backends.cudnn.benchmark = False  # would try out its algorithms anew for every size of test image
            with full_float32():
                return runner.test()
        finally:
            hooks[ProgressHook].close()


def complete_config(config: Config, options: FineTuningConfig, device: torch.device) -> Config:
    """The config from a task's `prepare` with everything that does not belong to its protocol."""
    config = JsonConfig(config.to_dict())
    config.work_dir = str(options.output / WORK_FOLDER)
    config.device = str(device)
    config.launcher = "pytorch" if torch.distributed.is_initialized() else "none"
    config.randomness = {"seed": options.seed}
    config.log_level = "ERROR"
    # Only the fine-tuned model is tested; the published metrics are those of the last iteration.
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.visualizer = {"type": "mmengine.Visualizer", "vis_backends": []}
    # A checkpoint is written after the last iteration, too.
    checkpoints = {"type": "CheckpointHook", "by_epoch": False, "interval": options.checkpoint_interval, "max_keep_ckpts": 2}
    config.default_hooks = {"logger": None, "checkpoint": {**checkpoints, "filename_tmpl": CHECKPOINT_NAME}}
    config.custom_hooks = [
        *config.get("custom_hooks", []),
        *({"type": name} for name in ("ProgressHook", "StopHook", "PlainCheckpointHook")),
        {"type": "SeedByIterationHook", "seed": options.seed},
    ]
    if device.type == "cpu" and config.optim_wrapper.optimizer.type in _FUSED_ON_CPU:
        # Recorded results were made so; PyTorch's default differs in the last digit of the weights. A choice in the config stays.
        config.optim_wrapper.optimizer.setdefault("fused", True)
    # Augmentation must not depend on who loads an image, nor on what was loaded before.
    train = config.train_dataloader
    train.sampler = {**train.sampler, "type": "PlaceSampler"}
    train.dataset = {"type": "SeededByPlace", "dataset": train.dataset, "seed": options.seed}
    # Pinned memory only helps copies to a GPU.
    for loader in (config.train_dataloader, config.test_dataloader):
        loader.pin_memory = device.type == "cuda"
        loader.persistent_workers = loader.num_workers > 0
    return config
