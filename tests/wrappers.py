"""What training loops write around a network: keys laid out as each tool writes them, with the source that says so."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

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


def by_lightning(tool: str, source: str, branch: str, spec: BackboneSpec = VIT, **names: str) -> Written:
    """After nine epochs, with the state of the callbacks beside the networks of `under`."""
    return Written(tool, source, {**LIGHTNING, "state_dict": under(spec, **names)}, spec, branch, 9)


WITH_HEAD = {"own": "module.backbone.", "heads": "module.head.mlp"}
LIGHTLY = "lightly-ai/lightly, examples/pytorch_lightning"
EMBEDDING = "embedding_model.wrapped_model._model."
TOOLS = [
    Written(
        "DINO, a teacher with batch normalisation",
        "facebookresearch/dino, main_dino.py: `teacher = DistributedDataParallel(teacher)` where has_batchnorms",
        {"student": zeros(under(RESNET, **WITH_HEAD)), "teacher": under(RESNET, **WITH_HEAD), "epoch": 3},
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
    by_lightning(
        "lightly, DINO",
        f"{LIGHTLY}/dino.py: student_backbone, student_head, teacher_backbone, teacher_head",
        "teacher_backbone",
        own="teacher_backbone.", other="student_backbone.", heads="teacher_head.layers student_head.layers",
    ),
    by_lightning(
        "lightly, MoCo",
        f"{LIGHTLY}/moco.py: backbone, backbone_momentum, projection heads",
        "backbone",
        own="backbone.", other="backbone_momentum.", heads="projection_head",
    ),
    by_lightning(
        "lightly-train, DINO",
        "lightly-ai/lightly-train, _methods/dino/dino.py, _models/embedding_model.py, _models/timm/timm.py",
        "teacher_embedding_model",
        own=f"teacher_{EMBEDDING}", other=f"student_{EMBEDDING}",
        heads="teacher_projection_head.layers student_projection_head.layers",
    ),
    by_lightning(
        "stable-pretraining, teacher and student",
        "galilai-group/stable-pretraining, backbone/utils.py, TeacherStudentWrapper: student, teacher within `backbone`",
        "teacher",
        own="backbone.teacher.", other="backbone.student.", heads="projector.teacher projector.student",
    ),
    by_lightning(
        "solo-learn",
        "vturrisi/solo-learn, solo/methods/base.py: backbone, momentum_backbone, classifier, projector",
        "backbone",
        RESNET,
        own="backbone.", other="momentum_backbone.", heads="classifier projector momentum_projector",
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
    Written(
        "torch's averaged model",
        "torch/optim/swa_utils.py: AveragedModel.module, n_averaged",
        {"model": zeros(under(own="")), "averaged_model": {"n_averaged": torch.tensor(3), **under(own="module.")}},
        branch="averaged_model",
    ),
]  # fmt: skip
