"""PatchBench's own training checkpoint, which `pretrain` writes.

`{"format": "patchbench-pretraining", "version", "settings", "backbone_spec", "student", "teacher", "epoch", "recipe_sha256", "seed",
...}`; each network's names begin with `backbone.` or `heads.`.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from backbones.layouts.base import Conversion, Layout, Source, entry_at, is_state_dict, stated_epoch
from backbones.layouts.keys import LayoutError, apply_table
from backbones.spec import shown, spec_from_dict
from common.files import one_line

FORMAT_MARK = "patchbench-pretraining"
VERSION = 1


def is_own_checkpoint(checkpoint: Any) -> bool:
    mark = entry_at(checkpoint, "format")
    return isinstance(mark, str) and mark == FORMAT_MARK


def _evaluated_branch(checkpoint: Mapping[str, Any]) -> str:
    """The network that the method's authors evaluate, which the checkpoint states."""
    if "evaluated_branch" in checkpoint:
        branch = checkpoint["evaluated_branch"]
        if type(branch) is not str or branch not in PATCHBENCH.branches:
            raise LayoutError(f"the checkpoint's evaluated_branch is none of {', '.join(PATCHBENCH.branches)}")
        return branch
    # Old checkpoints name the method only. MoBY's authors evaluate the online encoder, which is the student; all others the teacher.
    method = entry_at(checkpoint, "settings/method")
    if not isinstance(method, str):
        raise LayoutError("the checkpoint does not say by which method it was trained; choose with --branch")
    return "student" if method.startswith("moby") else "teacher"


def convert(checkpoint: Mapping[str, Any], branch: str | None, num_heads: int | None) -> Conversion:
    """Take a network with the spec that was trained, which the checkpoint states."""
    if branch not in (None, *PATCHBENCH.branches):
        raise LayoutError(f"the patchbench layout has no branch {branch!r}; it has {', '.join(PATCHBENCH.branches)}")
    version = checkpoint.get("version")
    if type(version) is not int or version != VERSION:
        raise LayoutError(f"pretraining checkpoint version {shown(version)}, this PatchBench reads {VERSION}")
    branch = branch or _evaluated_branch(checkpoint)
    spec = spec_from_dict(checkpoint["backbone_spec"])
    if num_heads is not None and num_heads != getattr(spec, "num_heads", None):
        raise LayoutError(f"--num-heads {num_heads} contradicts the checkpoint, which was trained with {spec}")
    network = checkpoint[branch]
    if not is_state_dict(network):
        raise LayoutError(f"the {branch} is not a state dict")
    state_dict, dropped = apply_table(network, {"backbone.*": "*", "heads.*": None})
    source = Source(
        format=PATCHBENCH.name,
        branch=branch,
        epoch=stated_epoch(checkpoint),
        recipe_sha256=checkpoint.get("recipe_sha256", ""),  # which old checkpoints do not state, nor the seed
        seed=checkpoint.get("seed", -1),
        **_origin(checkpoint.get("settings")),
    )
    return Conversion(source=source, spec=spec, state_dict=state_dict, dropped=dropped)


def _origin(settings: Any) -> dict[str, Any]:
    """Recipe, data and log of the pretraining, by its settings; empty where these say nothing, as old ones do of the recipe."""

    def text(name: str) -> str:
        value = settings.get(name, "") if isinstance(settings, Mapping) else ""
        if type(value) is not str:
            raise LayoutError(f"the checkpoint's setting {name} must be text, not {shown(value)}")
        return one_line(value)

    data, output = text("data.path"), text("train.output")
    return {
        "recipe": text("train.recipe"),
        "pretraining_data": "/".join(PurePath(data).parts[-2:]).removeprefix("//"),
        "log": f"{output}/log.jsonl" if output else "",
    }


PATCHBENCH = Layout(
    name="patchbench",
    branches=("teacher", "student"),  # the licence is that of whoever trained the weights
)
LAYOUTS = (PATCHBENCH,)
