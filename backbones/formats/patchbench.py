"""PatchBench's own training checkpoint, written by `pretrain.state`.

`{"format": "patchbench-pretraining", "version", "settings", "backbone_spec", "student", "teacher", "epoch", "recipe_sha256", "seed",
...}`; each network's names begin with `backbone.` or `heads.`.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.base import Conversion, FormatError, is_state_dict, stated_epoch, take
from backbones.spec import spec_from_dict

NAME = "patchbench"
TYPICAL = "format: patchbench-pretraining"
BRANCHES = ("teacher", "student")
LICENCE = "not stated"  # the weights are whose training it was
FORMAT_MARK = "patchbench-pretraining"
VERSION = 1


def matches(checkpoint: Any) -> bool:
    """Whether the checkpoint says so itself."""
    return isinstance(checkpoint, Mapping) and checkpoint.get("format") == FORMAT_MARK


def default_branch(checkpoint: Mapping[str, Any]) -> str:
    """The student of a MoBY run, else the teacher.

    DINO's authors, and with them SelfPatch's and PW-Self's, evaluate the teacher; MoBY's evaluate the online encoder (`encoder.` in
    their checkpoints), which is the student here.
    """
    settings = checkpoint["settings"]
    method = settings.get("method") if isinstance(settings, Mapping) else None
    if not isinstance(method, str):
        raise FormatError("the checkpoint does not say by which method it was trained; choose with --branch")
    return "student" if method.startswith("moby") else "teacher"


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`; the spec is the one that was trained."""
    if checkpoint.get("version") != VERSION:
        raise FormatError(f"pretraining checkpoint version {checkpoint.get('version')!r}, this PatchBench reads {VERSION}")
    spec = spec_from_dict(checkpoint["backbone_spec"])
    if num_heads is not None and num_heads != getattr(spec, "num_heads", None):
        raise FormatError(f"--num-heads {num_heads} contradicts the checkpoint, which was trained with {spec}")
    network = checkpoint[branch]
    if not is_state_dict(network):
        raise FormatError(f"the {branch} is no state dict")
    state_dict, dropped = take(network, "backbone.", ["heads."])
    return Conversion(
        format=NAME,
        branch=branch,
        spec=spec,
        state_dict=state_dict,
        dropped=dropped,
        epoch=stated_epoch(checkpoint),
        # Checkpoints from before these were recorded have neither.
        recipe_sha256=str(checkpoint.get("recipe_sha256", "")),
        seed=int(checkpoint.get("seed", -1)),
    )
