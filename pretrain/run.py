"""A pretraining run from its configuration to its checkpoint."""

import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from common.files import remove_leftovers, write_text_atomically
from common.interruption import Interrupted, StopRequest
from common.memory import peak_memory_bytes
from pretrain.config import PretrainConfig
from pretrain.data.loader import GlobalBatchSampler, MultiCropImages, UnreadableImages, build_loader
from pretrain.data.sources import open_source
from pretrain.data.views import view_kinds
from pretrain.distributed import choose_device, process_group, rank, require_same, world_size
from pretrain.exporting import export_backbones
from pretrain.log import RunLog
from pretrain.networks import Networks, build_networks
from pretrain.nonfinite import nonfinite_error
from pretrain.observers import Moment, Observer
from pretrain.recording import Recorder
from pretrain.resuming import start_or_resume
from pretrain.saving import CheckpointWriter
from pretrain.sentinel import Sent, Sentinel
from pretrain.state import CHECKPOINT_FILE, Progress, count_parameters, plain_config, run_settings
from pretrain.stepping import Stepper
from pretrain.watching.watcher import CurveDrawer, Watcher

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"


def pretrain(config: PretrainConfig) -> Path:
    """Train until the last epoch, continuing where an earlier start of the same run left off.

    On one device a continued run computes bit for bit what an uninterrupted one does.

    Returns:
        The checkpoint.

    Raises:
        ValueError: If the data, the output or the settings do not work; nothing has been trained then. Or if a number is no longer
            finite or the checkpoint cannot be written; the last good checkpoint is kept then.
        Interrupted: After a signal of `common.interruption.STOP_SIGNALS` to any of the processes: the step was finished and saved.
    """
    device = choose_device(config.train.device)
    with process_group(device):
        return _Run(config, device).train()


class _Run:
    """The parts of a run and its loop."""

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.stop = StopRequest()
        self.checkpoint = config.train.output / CHECKPOINT_FILE
        self.source = open_source(config.data)
        self.settings = run_settings(config, self.source.names)
        listing = f"{len(self.source.names)} in {config.data.path} with digest {self.settings['data.listing_sha256'][:8]}"
        require_same(listing, "the list of images")
        train = config.train
        self.sampler = GlobalBatchSampler(
            len(self.source.names), train.batch_size, train.seed, rank(), world_size(), config.views.shared_by
        )
        share = train.batch_size // world_size()
        if share % train.accumulate:
            raise ValueError(
                f"train.accumulate={train.accumulate} does not divide the {share} images of each of the {world_size()} processes "
                f"(train.batch_size={train.batch_size})"
            )
        self.dataset = MultiCropImages(
            self.source, view_kinds(config.views), config.train.seed, colours=not config.views.on_device
        )
        self.loader = build_loader(self.dataset, self.sampler, config.data, pin_memory=device.type == "cuda")
        self.unreadable = UnreadableImages(config.data.max_unreadable)
        self.last_step = config.train.epochs * self.sampler.steps_per_epoch

    def train(self) -> Path:
        self._prepare_output()
        networks = build_networks(self.config, self.device)
        progress = start_or_resume(self.checkpoint, self.config.train.resume, self.settings, networks)
        self._write_config()
        self._announce(networks, progress.step)
        if progress.step < self.last_step:
            self._train(networks, progress)
        if self.config.train.export and rank() == 0:
            logger.info("exported %s", " and ".join(map(str, export_backbones(self.checkpoint))))
        return self.checkpoint

    def _train(self, networks: Networks, progress: Progress) -> None:
        start = time.monotonic()
        with contextlib.ExitStack() as stack:
            log = RunLog(self.config.train.output, progress.step, self.last_step) if rank() == 0 else None
            if log is not None:
                stack.callback(log.close)
            writer = CheckpointWriter(
                self.checkpoint, self.settings, self.config.train, self.sampler.steps_per_epoch, progress.kept
            )
            observers = self._observers()
            for observer in (*observers, writer):
                stack.callback(observer.close)
            # Before the first step there is nothing to save, and a signal ends the process as ever.
            stack.enter_context(self.stop)
            steps, signum = self._loop(networks, progress.step, observers, writer, log)
        logger.info(
            "%d steps in %.0f s, peak memory %.1f GiB (process %d)",
            steps - progress.step,
            time.monotonic() - start,
            peak_memory_bytes(self.device) / 2**30,
            rank(),
        )
        if steps < self.last_step:
            interrupted = Interrupted(signum)
            if rank() == 0:
                logger.info("%s after step %d, which is saved; the same command line continues", interrupted, steps)
            raise interrupted

    def _observers(self) -> list[Observer]:
        """What looks at every step, in this order; the recorder comes after those that add to its line."""
        config = self.config
        return [Watcher(config, self.source, self.device), Recorder(self.device), CurveDrawer(config)]

    def _loop(
        self,
        networks: Networks,
        first_step: int,
        observers: Sequence[Observer],
        writer: CheckpointWriter,
        log: RunLog | None,
    ) -> tuple[int, int]:
        """Do the steps until the last one, or until a signal; returns how many are done, and the signal's number."""
        train, steps_per_epoch = self.config.train, self.sampler.steps_per_epoch
        self.sampler.plan(first_step, self.last_step)
        stepper = Stepper(self.config, self.device, networks, steps_per_epoch)
        sentinel = Sentinel(self.device, lag=1 if self.device.type == "cuda" else 0)
        for step, batch in enumerate(self.loader, start=first_step):
            self.unreadable.report(batch.failures)
            is_complete = step + 1 == self.last_step
            epoch_ended = (step + 1) % steps_per_epoch == 0
            is_logged = (step + 1) % train.log_every == 0 or epoch_ended
            done = stepper.do(step, batch, diagnose=is_logged)
            verdict = sentinel.check(
                step + 1, networks, done.losses, self.stop.signum, settle=is_complete or writer.is_due(step + 1)
            )
            if verdict.failed is not None:
                raise self._nonfinite(verdict.failed)
            is_last = is_complete or verdict.signum > 0
            moment = Moment(
                step=step + 1,
                epoch=step // steps_per_epoch,
                epoch_ended=epoch_ended,
                is_logged=is_logged,
                is_last=is_last,
                networks=networks,
                crops=done.crops,
                boxes=batch.boxes,
                losses=done.losses,
                settings=done.settings,
                log=log,
            )
            # Who is asked to stop may be killed soon: saving comes first then.
            for observer in (writer, *observers) if verdict.signum else (*observers, writer):
                observer.after_step(moment)
            if is_last:
                return step + 1, verdict.signum
        raise AssertionError("the sampler's plan ends with the run's last step")

    def _nonfinite(self, failed: Sent) -> ValueError:
        images = [self.source.describe(index) for index in self.sampler.global_batch(failed.step - 1)]
        epoch = (failed.step - 1) // self.sampler.steps_per_epoch
        return nonfinite_error(failed, epoch, images, self.config.train.output, self.checkpoint)

    def _prepare_output(self) -> None:
        if rank() == 0:
            output = self.config.train.output
            output.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.checkpoint)

    def _write_config(self) -> None:
        """Only once the run may go on: the file may be another run's."""
        if rank() == 0:
            resolved = yaml.safe_dump(plain_config(self.config), sort_keys=False)
            write_text_atomically(self.config.train.output / CONFIG_FILE, resolved)

    def _announce(self, networks: Networks, first_step: int) -> None:
        if rank() == 0:
            logger.info(
                "%s: %s, %.2f M parameters in the backbone, %.2f M with heads; %d images, %d steps of %d images; %s, %d processes%s",
                self.config.method,
                networks.spec,
                count_parameters(networks.student.get_submodule("backbone")) / 1e6,
                count_parameters(networks.student) / 1e6,
                self.sampler.images,
                self.last_step,
                self.config.train.batch_size,
                self.device,
                world_size(),
                f"; continuing after step {first_step}" if first_step else "",
            )
