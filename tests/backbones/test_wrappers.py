"""Checkpoints as training loops write them: a network under wrappers is found, or the message holds the command that takes it."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from backbones.convert import Selection, convert_content, open_backbone
from backbones.spec import BackboneSpec
from tests.layouts import DINOV2, RESNET, VIT, prefixed, weights_of

WEIGHTS = {spec: weights_of(spec) for spec in (VIT, RESNET, DINOV2)}
HEAD = {"0.weight": torch.ones(2, 64), "0.bias": torch.ones(2)}


def zeros(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of a network that must not be taken."""
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}


def under(spec: BackboneSpec = VIT, **others: str) -> dict[str, Tensor]:
    """A state dict with the network behind `own`, networks of zeros behind the others, and heads of one layer behind `heads`."""
    own, heads = others.pop("own"), others.pop("heads", "").split()
    found = prefixed(own, WEIGHTS[spec])
    for prefix in others.values():
        found |= prefixed(prefix, zeros(WEIGHTS[spec]))
    for head in heads:
        found |= prefixed(f"{head}.", HEAD)
    return found


LIGHTNING = {"epoch": 9, "global_step": 100, "pytorch-lightning_version": "2.5.0", "hparams_name": "kwargs", "callbacks": {}}
PROGRESS = {name: {"ready": 10, "started": 10, "processed": 10, "completed": 9} for name in ("total", "current")}
LOOPS = {"fit_loop": {"state_dict": {}, "epoch_progress": PROGRESS}}
DINOV2_TRAINING = {"model": {
    **prefixed("teacher.", {**under(DINOV2, own="backbone.", heads="dino_head.mlp"), "backbone.mask_token": torch.ones(1, 64)}),
    **prefixed("student.", {**zeros(under(DINOV2, own="backbone.")), "backbone.mask_token": torch.ones(1, 64)}),
    "dino_loss.center": torch.zeros(1, 8),
}, "optimizer": {"state": {}}, "iteration": 12}  # fmt: skip


class Written(NamedTuple):
    tool: str
    source: str  # Where the names are from.
    checkpoint: Any
    spec: BackboneSpec = VIT
    branch: str = "model"
    epoch: int = -1


TOOLS = [
    Written(
        "DINO, a teacher with batch normalisation",
        "facebookresearch/dino, main_dino.py: `teacher = DistributedDataParallel(teacher)` where has_batchnorms",
        {
            "student": zeros(under(RESNET, own="module.backbone.", heads="module.head.mlp")),
            "teacher": under(RESNET, own="module.backbone.", heads="module.head.mlp"),
            "epoch": 3,
        },
        RESNET,
        "teacher",
        3,
    ),
    Written(
        "DINOv2, the trainer's file",
        "facebookresearch/dinov2, dinov2/train/ssl_meta_arch.py: ModuleDicts student and teacher of backbone, dino_head, ibot_head",
        DINOV2_TRAINING,
        DINOV2,
        "teacher",
    ),
    Written(
        "DINOv2 under FSDP",
        "torch.distributed.fsdp.fully_sharded_data_parallel: FSDP_WRAPPED_MODULE, in chunks of blocks",
        {"model": {name.replace("blocks.", "blocks.0._fsdp_wrapped_module.").replace("backbone.", "backbone._fsdp_wrapped_module.")
                   : tensor for name, tensor in DINOV2_TRAINING["model"].items()}},
        DINOV2,
        "teacher",
    ),
    Written(
        "Lightning",
        "pytorch_lightning, trainer/connectors/checkpoint_connector.py, dump_checkpoint",
        {**LIGHTNING, "loops": LOOPS, "state_dict": under(own="model.backbone.", heads="model.projector")},
        epoch=10,
    ),
    Written(
        "lightly, DINO",
        "lightly-ai/lightly, examples/pytorch_lightning/dino.py: student_backbone, student_head, teacher_backbone, teacher_head",
        {
            **LIGHTNING,
            "state_dict": under(own="teacher_backbone.", other="student_backbone.", heads="teacher_head.layers student_head.layers"),
        },
        branch="teacher_backbone",
        epoch=9,
    ),
    Written(
        "lightly, MoCo",
        "lightly-ai/lightly, examples/pytorch_lightning/moco.py: backbone, backbone_momentum, projection heads",
        {**LIGHTNING, "state_dict": under(own="backbone.", other="backbone_momentum.", heads="projection_head")},
        branch="backbone",
        epoch=9,
    ),
    Written(
        "lightly-train, DINO",
        "lightly-ai/lightly-train, _methods/dino/dino.py, _models/embedding_model.py, _models/timm/timm.py",
        {
            **LIGHTNING,
            "state_dict": under(
                own="teacher_embedding_model.wrapped_model._model.",
                other="student_embedding_model.wrapped_model._model.",
                heads="teacher_projection_head.layers student_projection_head.layers",
            ),
        },
        branch="teacher_embedding_model",
        epoch=9,
    ),
    Written(
        "stable-pretraining, teacher and student",
        "galilai-group/stable-pretraining, backbone/utils.py, TeacherStudentWrapper: student, teacher within `backbone`",
        {
            **LIGHTNING,
            "state_dict": under(own="backbone.teacher.", other="backbone.student.", heads="projector.teacher projector.student"),
        },
        branch="teacher",
        epoch=9,
    ),
    Written(
        "solo-learn",
        "vturrisi/solo-learn, solo/methods/base.py: backbone, momentum_backbone, classifier, projector",
        {
            **LIGHTNING,
            "state_dict": under(RESNET, own="backbone.", other="momentum_backbone.", heads="classifier projector momentum_projector"),
        },
        RESNET,
        "backbone",
        9,
    ),
    Written(
        "MMSelfSup, BYOL",
        "open-mmlab/mmpretrain, models/selfsup/byol.py: backbone, neck, head, target_net (CosineEMA)",
        {"meta": {"epoch": 20}, "state_dict": under(RESNET, own="backbone.", other="target_net.module.0.", heads="neck head")},
        RESNET,
        "backbone",
        20,
    ),
    Written(
        "Accelerate",
        "huggingface/accelerate, Accelerator.save_state: the model's own names, or those of its wrappers where it was prepared twice",
        under(own="module.backbone.", heads="module.head"),
    ),
    Written("torch.compile", "torch/_dynamo/eval_frame.py: OptimizedModule._orig_mod", under(own="_orig_mod.")),
    Written("torch.compile of DDP", "both", {"state_dict": under(own="module._orig_mod.encoder.", heads="module._orig_mod.head")}),
    Written(
        "FSDP with activation checkpointing, a full state dict",
        "torch/distributed/algorithms/_checkpoint/checkpoint_wrapper.py: _CHECKPOINT_PREFIX",
        {"model": {name.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module.") : tensor
                   for name, tensor in under(own="_fsdp_wrapped_module.backbone.").items()}},
    ),
    Written("DeepSpeed", "deepspeed/runtime/engine.py: `module`", {"module": under(own=""), "ds_version": "0.14"}),
    Written(
        "timm, averaged weights",
        "huggingface/pytorch-image-models, timm/utils/checkpoint_saver.py: state_dict, state_dict_ema",
        {"state_dict": zeros(under(own="module.")), "state_dict_ema": under(own="module."), "epoch": 5},
        branch="state_dict_ema",
        epoch=5,
    ),
    Written(
        "timm's older scripts",
        "facebookresearch/deit, main.py: model, model_ema",
        {"model": zeros(under(own="")), "model_ema": under(own=""), "epoch": 5},
        branch="model_ema",
        epoch=5,
    ),
]  # fmt: skip


@pytest.mark.parametrize("written", TOOLS, ids=lambda written: written.tool)
def test_what_a_tool_writes_is_taken_without_an_option(written: Written, tmp_path: Path) -> None:
    """Equal weights in an equal network give equal features; `test_layouts` compares those for each naming."""
    torch.save(written.checkpoint, path := tmp_path / "checkpoint.pth")
    found = open_backbone(path)
    assert (found.spec, found.branch, found.epoch) == (written.spec, written.branch, written.epoch)
    weights = WEIGHTS[written.spec]
    assert found.state_dict.keys() == weights.keys()
    assert all(torch.equal(found.state_dict[name], tensor) for name, tensor in weights.items())
    listed = sum(map(len, found.dropped.values()))
    tensors = [node for node in walk(written.checkpoint) if isinstance(node, Tensor)]
    assert listed + len(weights) == len(tensors)  # nothing beside the network goes unmentioned


def walk(node: Any) -> list[Any]:
    return [node, *(part for child in node.values() for part in walk(child))] if isinstance(node, dict) else [node]


def test_preferred_networks_are_reported_and_the_others_can_be_chosen() -> None:
    checkpoint = {"model": WEIGHTS[VIT], "model_ema": zeros(WEIGHTS[VIT])}
    found = convert_content(checkpoint)
    assert found.branch_reason == "preferred to model, which --branch takes"
    assert len(found.dropped["model/*"]) == len(WEIGHTS[VIT])
    other = convert_content(checkpoint, branch="model")
    assert torch.equal(other.state_dict["norm.bias"], WEIGHTS[VIT]["norm.bias"])
    assert other.branch_reason == ""


@pytest.mark.parametrize(
    ("checkpoint", "options"),
    [
        ({"a": under(own="encoder_a.", other="encoder_b.")}, ["--key a --prefix encoder_a.", "--key a --prefix encoder_b."]),
        (under(own="encoder.0.", other="encoder.1."), ["--branch 0", "--branch 1"]),
        ({"encoder": under(own=""), "target_encoder": zeros(WEIGHTS[VIT])}, ["--branch encoder", "--branch target_encoder"]),
        (under(own="momentum_encoder."), ["--branch model"]),
        (under(own="criterion.perceptual."), ["--prefix criterion.perceptual."]),
        ({"my net": under(own="x.y.")}, ["--key 'my net' --prefix x.y."]),
        ({"student": under(own=""), "teacher": {}}, ["--branch model"]),
        (
            {**under(own="backbone."), **prefixed("other.", dict(list(WEIGHTS[VIT].items())[3:]))},
            ["--prefix backbone."],
        ),
    ],
    ids=["two unknown", "two", "target", "momentum", "of a loss", "unknown", "no teacher", "incomplete"],
)
def test_a_question_comes_with_the_commands_that_answer_it(checkpoint: Any, options: list[str], tmp_path: Path) -> None:
    """Neither order nor chance decides, and each command that the message prints works as it stands."""
    torch.save(checkpoint, path := tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match="checkpoint") as caught:
        open_backbone(path)
    message = str(caught.value)
    assert "\n" not in message
    for option in options:
        command = f"python tools/convert_checkpoint.py {path} {option}"
        assert command in message
        values = dict(zip(parts := shlex.split(option), parts[1:], strict=False))
        selection = Selection(values.get("--key", ""), values.get("--prefix", ""))
        assert open_backbone(path, branch=values.get("--branch"), selection=selection).spec == VIT


def test_key_prefix_and_map_take_what_no_rule_knows(tmp_path: Path) -> None:
    """With the same strictness: what lies beside is listed, and nothing is left over."""
    odd = {name.replace("attn.", "attention."): tensor for name, tensor in under(own="deep.body.", heads="deep.cls").items()}
    torch.save({"run.1": {"nets": odd}}, path := tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="no known layout matches"):
        open_backbone(path)
    found = open_backbone(path, selection=Selection("run.1.nets", "deep.body.", ("attention=attn",)))
    assert all(torch.equal(found.state_dict[name], tensor) for name, tensor in WEIGHTS[VIT].items())
    assert found.dropped == {"not under --prefix deep.body.": ("deep.cls.0.weight", "deep.cls.0.bias")}
    for selection, match in (
        (Selection(key="run.2"), r"--key run\.2: no such entry; the top-level keys are run\.1"),
        (Selection(prefix="body."), "--prefix body.: no name begins so; there are deep.body.blocks"),
        (Selection("run.1", "deep.body.", ("attention",)), "as OLD=NEW"),
        (Selection("run.1", "deep.body.", ("attend=attn",)), "no name contains 'attend'"),
        (Selection("run.1", "deep.body.", ("attention=attn", "norm1=norm2")), "two tensors would both be called"),
        (Selection("run.1", "deep.body.", ("attention=attn", "mlp.fc2=mlp.fc3")), "names that no rule of the layout covers"),
    ):
        with pytest.raises(ValueError, match=match):
            open_backbone(path, selection=selection)


def test_tokens_beside_a_network_that_lacks_them_are_not_dropped() -> None:
    spec = replace(VIT, class_token=False)
    weights = prefixed("backbone.", weights_of(spec))
    assert convert_content(weights).spec == spec
    with pytest.raises(ValueError, match=r"xbackbone\.cls_token lies beside the network under 'backbone\.', which has none"):
        convert_content({**weights, "xbackbone.cls_token": torch.ones(1, 1, 64)})


@pytest.mark.parametrize(
    ("arch", "refused"),
    [
        ("resnetblur50", "maxpool is a Sequential"),
        ("resnetaa50", "maxpool is a AvgPool2d"),
        ("resnet50", ""),
        ("my_resnet", ""),
    ],
)
def test_an_arch_that_names_another_network_is_believed(arch: str, refused: str) -> None:
    checkpoint = {"arch": arch, "state_dict": WEIGHTS[RESNET]}
    if not refused:
        assert convert_content(checkpoint).spec == RESNET
        return
    with pytest.raises(ValueError, match=f"timm's {arch}, whose {refused}"):
        convert_content(checkpoint)
