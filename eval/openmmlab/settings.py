"""What the protocols of both tasks record of a config: every constant of the optimiser, the backbone and the batch."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config

from backbones.spec import BackboneSpec
from eval.openmmlab.batch import BatchPlan
from eval.openmmlab.config_values import plain

NORM_LAYERS = "norm layers"
"""Entry of `undecayed` for a rule that exempts normalisation by kind of layer instead of by name."""

# What changes no figure, or follows from the backbone's widths.
_NO_SETTINGS = {"backbone_file", "compile", "in_channels"}


def optimiser_settings(config: Config) -> dict[str, Any]:
    """Optimiser, learning rate, its other constants, which parameters weight decay leaves alone, clipping and precision."""
    wrapper = config.optim_wrapper
    constants = {name: value for name, value in wrapper.optimizer.items() if name not in ("type", "lr")}
    rules = wrapper.get("paramwise_cfg") or {}
    undecayed = [name for name, rule in rules.get("custom_keys", {}).items() if rule.get("decay_mult") == 0]
    if rules.get("norm_decay_mult") == 0:
        undecayed.append(NORM_LAYERS)
    return {
        "optimiser": wrapper.optimizer.type,
        "learning_rate": wrapper.optimizer.lr,
        **constants,
        "undecayed": sorted(undecayed),
        "gradient_clipping": wrapper.get("clip_grad"),
        "precision": wrapper.get("dtype", "float32"),
    }


def backbone_settings(config: Config, spec: BackboneSpec) -> dict[str, Any]:
    """How the backbone is used: all options of `BackboneFromFile`."""
    settings = flat_settings("", config.model.backbone)
    del settings["type"]
    heads = settings.pop("num_heads", None) or getattr(spec, "num_heads", None)
    return settings if heads is None else {**settings, "num_heads": plain(heads)}


def flat_settings(prefix: str, part: Mapping[str, Any] | None) -> dict[str, Any]:
    """The constants of one part of a network, as `PREFIX.NAME`; a part that is absent has none.

    Args:
        prefix: Such as `head`; "" leaves the names alone.
        part: Its entry in the config.
    """
    constants = {name: value for name, value in (part or {}).items() if name not in _NO_SETTINGS}
    return {f"{prefix}.{name}" if prefix else name: plain(value) for name, value in constants.items()}


def batch_settings(batch: BatchPlan, device: torch.device, has_batch_norm: bool = True) -> dict[str, Any]:
    """Images per update, and images whose statistics batch normalisation shares, where there is any."""
    if not has_batch_norm:
        return {"batch_size": batch.total}
    # Statistics are shared between GPUs (SyncBN), not between processes on the CPU.
    sharing = batch.world_size if device.type == "cuda" else 1
    return {"batch_size": batch.total, "batch_norm_images": batch.per_device * sharing}
