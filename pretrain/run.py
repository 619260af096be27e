"""A pretraining run from its configuration to its checkpoint."""

import logging
import time
from contextlib import closing
from pathlib import Path

import torch
import yaml

from common.cli import Interrupted, StopRequest
from common.distributed import choose_device, hold_folder, peak_memory_bytes, process_group, rank, require_same, world_size
from common.files import remove_leftovers, write_text_atomically
from pretrain.checkpoint import Checkpoint, export_backbones, run_settings
from pretrain.config import PretrainConfig, plain_config
from pretrain.data.loader import GlobalBatchSampler, MultiCropImages, build_loader, network_inputs, report_unreadable
from pretrain.data.sources import ImageFiles, open_source
from pretrain.log import RunLog, record_step
from pretrain.networks import build_networks
from pretrain.schedules import step_settings
from pretrain.step import agree, nonfinite_error, seed_step, training_step, wrap_student

logger = logging.getLogger(__name__)


def pretrain(config: PretrainConfig) -> Path:
    """Train until the last epoch, continuing where an earlier start of the same run left off; returns the checkpoint.

    On a CPU a continued run computes bit for bit what an uninterrupted one does; some kernels of a GPU do not repeat a sum.

    Raises:
        ValueError: If the data, the output or the settings do not work, before training; or if a number is no longer finite or the
            checkpoint cannot be written, with the last good checkpoint kept.
        Interrupted: After a signal of `common.cli.STOP_SIGNALS` to any of the processes: the step was finished and saved.
    """
    device = choose_device(config.train.device)
    with process_group(device):
        source = open_source(config.data)
        with hold_folder(config.train.output):
            return _pretrain(config, device, source)


def _pretrain(config: PretrainConfig, device: torch.device, source: ImageFiles) -> Path:
    train = config.train
    images, settings = len(source.names), run_settings(config, source.names)
    listing = f"{images} in {config.data.path} with digest {settings['data.listing_sha256'][:8]}"
    require_same(listing, "the list of images")
    sampler = GlobalBatchSampler(images, train, rank(), world_size(), config.views.shared_by)
    networks = build_networks(config, device)
    checkpoint = Checkpoint(train, settings, networks, sampler.steps_per_epoch)
    if rank() == 0:
        # What pretraining itself writes: evaluations of the run have files of their own there.
        for written in ("checkpoint*", "config", "log", "nonfinite_batch", "backbone_teacher", "backbone_student"):
            remove_leftovers(train.output, f".{written}.*.tmp.*")
    done = checkpoint.restore()
    last_step = train.epochs * sampler.steps_per_epoch
    if rank() == 0:
        # Only once the run may go on: the file may be another run's.
        write_text_atomically(train.output / "config.yaml", yaml.safe_dump(plain_config(config), sort_keys=False))
        parts = networks.student.get_submodule("backbone"), networks.student
        millions = [sum(parameter.numel() for parameter in part.parameters()) / 1e6 for part in parts]
        logger.info("%s: %s, %.2f M parameters, %.2f M with heads", config.method, networks.spec, *millions)
        progress = f"{images} images, {last_step} steps of {train.batch_size} images; {device}, {world_size()} processes"
        state = "; complete already" if done == last_step else f"; continuing after step {done}" if done else ""
        logger.info("%s%s", progress, state)
    if done < last_step:
        sampler.plan(done, last_step)
        start = time.monotonic()
        steps, signum = _train(config, device, source, sampler, checkpoint)
        seconds, gibibytes = time.monotonic() - start, peak_memory_bytes(device) / 2**30
        logger.info("%d steps in %.0f s, peak memory %.1f GiB (process %d)", steps - done, seconds, gibibytes, rank())
        if steps < last_step:
            if rank() == 0:
                logger.info("%s after step %d, which is saved; the same command line continues", Interrupted(signum), steps)
            raise Interrupted(signum)
    if train.export and rank() == 0:
        logger.info("exported %s", " and ".join(map(str, export_backbones(checkpoint.path))))
    return checkpoint.path


def _train(
    config: PretrainConfig, device: torch.device, source: ImageFiles, sampler: GlobalBatchSampler, checkpoint: Checkpoint
) -> tuple[int, int]:
    """Do the sampler's steps until the last one, or until a signal; returns how many are done, and the signal's number."""
    train, steps_per_epoch = config.train, sampler.steps_per_epoch
    networks, parts = checkpoint.networks, train.accumulate
    dataset = MultiCropImages(source, config.views, train.seed)
    loader = build_loader(dataset, sampler, config.data, pin_memory=device.type == "cuda")
    unreadable: set[str] = set()
    monitor = None
    if config.watch.every:
        from pretrain.monitoring.monitor import Monitor

        monitor = Monitor(config, source, device)
    student = wrap_student(networks, device, train.compile)
    # Before the first step there is nothing to save, and a signal ends the process as ever.
    with StopRequest() as stop:
        log = stop.enter_context(closing(RunLog(train.output, sampler.next_step, sampler.last_step))) if rank() == 0 else None
        for step, batch in enumerate(loader, start=sampler.next_step + 1):
            report_unreadable(batch.failures, unreadable, config.data.max_unreadable)
            is_complete = step == sampler.last_step
            epochs_done, begun = divmod(step, steps_per_epoch)
            is_logged = not begun or step % train.log_every == 0
            now = step_settings(config, steps_per_epoch, step - 1)
            seed_step(train.seed, step - 1)
            losses = training_step(
                student, networks, network_inputs(batch, device), now, batch.boxes, diagnose=is_logged, accumulate=parts
            )
            signum, broken = agree(networks, losses, stop.signum)
            if broken:
                raise nonfinite_error(step, losses["loss"], sampler, source, checkpoint.path)
            if signum:
                # A scheduler kills a process some time after its signal, so the checkpoint comes before everything else.
                checkpoint.write(step)
            # For the same reason, no plots are drawn after a signal.
            is_due = monitor and not begun and not signum and epochs_done % config.watch.every == 0
            watching = monitor if is_complete or is_due else None
            monitored = watching.before_log(step, epochs_done, networks.teacher, log) if watching else {}
            if is_logged:
                record_step(log, step, (step - 1) // steps_per_epoch, losses, now, monitored)
            if log is not None:
                log.bar.update()
                if watching:
                    watching.after_log(epochs_done)
            if signum:
                return step, signum
            if is_complete or checkpoint.is_due(step):
                checkpoint.write(step)
    return sampler.last_step, 0
