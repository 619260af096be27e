"""Damaged checkpoints of every layout: refused with one line, or the damage did not touch the backbone."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backbones.convert import Selection, open_backbone, write_conversion
from backbones.file import read_backbone_file
from tests.layouts import RESNET, Made, make_all
from tests.wrappers import TOOLS, WEIGHTS

MADE = make_all() | {tool.tool: Made(tool.tool, tool.checkpoint, tool.spec, WEIGHTS[tool.spec]) for tool in TOOLS}
LAYOUTS = [name for name, made in MADE.items() if made.spec != RESNET]
# A ResNet's smallest file has 32 MB; two layouts of them, one with arrays, stand for all in the quick run.
RESNETS = ["moco", "detectron2"]
# Without these a checkpoint is a complete one of another network (registers), or of the same (masks, batch counters, and what old
# PatchBench files lack: nothing else may be missing).
OPTIONAL = ("register_tokens", "storage_tokens", "reg_token", "attn_mask", "num_batches_tracked")
DAMAGES = ("drop", "rename", "reshape", "transpose", "truncate rank", "not a tensor", "not a number", "nest", "unwrap", "empty")

Group = dict[str, Any]


def groups(node: Any) -> list[Group]:
    """The dictionaries that hold weights."""
    if not isinstance(node, dict):
        return []
    own = [node] if any(isinstance(value, (Tensor, np.ndarray)) for value in node.values()) else []
    return own + [group for value in node.values() for group in groups(value)]


def damage_one(checkpoint: Any, kind: str, chance: random.Random) -> Any:
    """One mutation of a copy of a checkpoint; its content may end up as it was."""
    group = chance.choice(groups(checkpoint))
    names = [name for name, value in group.items() if isinstance(value, (Tensor, np.ndarray)) and not name.endswith(OPTIONAL)]
    if {"reg_token", "pos_embed"} <= group.keys():  # timm has networks with registers and without CLS token
        names = [name for name in names if name != "cls_token"]
    if not names:
        return checkpoint
    name = chance.choice(names)
    value = torch.as_tensor(group[name])
    match kind:
        case "drop":
            del group[name]
        case "rename":
            others = [f"module.{name}", f"x{name}", name[1:], name.replace("weight", "bias"), name.upper(), f"{name}\n"]
            group[chance.choice(others)] = group.pop(name)
        case "reshape":
            group[name] = torch.cat([value, value]) if value.ndim else value[None]
        case "transpose":
            if value.ndim > 1 and value.shape[0] != value.shape[-1]:
                group[name] = value.transpose(0, -1)
        case "truncate rank":
            group[name] = value.flatten() if value.ndim > 1 else value.reshape(-1)[:1].squeeze()
        case "not a tensor":
            group[name] = chance.choice([0, None, "weight", [1.0], {}])
        case "not a number":
            if value.is_floating_point():
                group[name] = torch.full_like(value, chance.choice([float("nan"), float("inf")]))
        case "nest":
            inner = dict(group)
            group.clear()
            # A branch of zeros that is called the teacher would be taken as one where the wanted branch is empty.
            group[chance.choice(["state_dict", "model", "net", "x", *(["teacher"] if value.any() else [])])] = inner
        case "unwrap" if value.any():  # not a branch of zeros, which could then be nested where the wanted one was
            return group
        case "empty":
            group.clear()
    return checkpoint


def check(made: Made, kinds: list[str], chance: random.Random, folder: Path) -> None:
    checkpoint = _copied(made.checkpoint)
    for kind in kinds:
        if groups(checkpoint):
            checkpoint = damage_one(checkpoint, kind, chance)
    path, output = folder / "damaged.pth", folder / "damaged.safetensors"
    output.unlink(missing_ok=True)
    torch.save(checkpoint, path)
    try:
        write_conversion(open_backbone(path, Selection(num_heads=made.num_heads)), path, output)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 - the damage may also leave the backbone whole
        assert "\n" not in str(error)  # noqa: PT017
        assert not output.exists()
        return
    # Accepted: then it is the whole backbone, bit for bit, of the branch that had been there.
    content = read_backbone_file(output)
    assert content.spec == made.spec
    assert content.state_dict.keys() == made.weights.keys()
    for name, tensor in made.weights.items():
        if not name.endswith(OPTIONAL):
            torch.testing.assert_close(content.state_dict[name], tensor, atol=1e-6, rtol=0)


def _copied(node: Any) -> Any:
    """Fresh dictionaries around the same tensors."""
    return {key: _copied(value) for key, value in node.items()} if isinstance(node, dict) else node


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.long)])
def test_an_incomplete_checkpoint_never_becomes_a_backbone_file(count: int, tmp_path: Path) -> None:
    chance = random.Random(count)
    for _ in range(count):
        name = chance.choice([*LAYOUTS, *RESNETS])
        check(MADE[name], chance.choices(DAMAGES, k=chance.randint(1, 3)), chance, tmp_path)
