"""All schedules of a run as one function of the step."""

from collections.abc import Callable

from pretrain.config import PretrainConfig
from pretrain.optim import REFERENCE_BATCH
from pretrain.schedules import CosineSchedule, TemperatureSchedule
from pretrain.trainer import StepSettings


def step_settings(config: PretrainConfig, steps_per_epoch: int) -> Callable[[int], StepSettings]:
    """The values of all schedules by the number of steps done before.

    The peak learning rate is `optim.lr` x global batch / 256, whatever the number of processes.
    """
    optim, dino = config.optim, config.dino
    steps = config.train.epochs * steps_per_epoch
    lr = CosineSchedule(
        start=optim.lr * config.train.batch_size / REFERENCE_BATCH,
        end=optim.min_lr,
        steps=steps,
        warmup_steps=optim.warmup_epochs * steps_per_epoch,
    )
    weight_decay = CosineSchedule(start=optim.weight_decay, end=optim.weight_decay_end, steps=steps)
    momentum = CosineSchedule(start=optim.teacher_momentum, end=1.0, steps=steps)
    temperature = TemperatureSchedule(
        start=dino.warmup_teacher_temperature,
        end=dino.teacher_temperature,
        warmup_epochs=dino.warmup_teacher_temperature_epochs,
    )

    def settings(step: int) -> StepSettings:
        epoch = step // steps_per_epoch
        return StepSettings(
            lr=lr(step),
            weight_decay=weight_decay(step),
            teacher_momentum=momentum(step),
            teacher_temperature=temperature(epoch),
            clip_grad=optim.clip_grad,
            clip_each=optim.clip_each,
            freeze_last_layer=epoch < optim.freeze_last_layer_epochs,
        )

    return settings
