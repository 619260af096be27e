"""Every layout is found from its keys, alone, and gives the features of the network that it was made from."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from backbones.build import network_of
from backbones.convert import Selection, convert_content, open_backbone, write_conversion
from backbones.file import load_backbone, read_backbone_file
from backbones.layouts import LAYOUTS, LayoutError
from backbones.spec import ViTSpec
from tests.layouts import RESNET, VIT, make_all, prefixed, weights_of

MADE = make_all()
SIDE = {"vit": 112, "dinov3": 112, "swin": 224, "resnet": 64}  # 112: a multiple of the patch sizes 14 and 16


def features(network: Any) -> torch.Tensor:
    side = SIDE[network.spec.family]
    images = torch.rand(1, 3, side, side + side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = network.eval().forward_tokens(images)
    rows, columns = tokens.grid
    assert (columns, rows * columns) == (2 * rows, tokens.patches.shape[1])
    return tokens.patches


@pytest.mark.parametrize("name", MADE)
def test_features(name: str, tmp_path: Path) -> None:
    made = MADE[name]
    path, output = tmp_path / f"{name}.pth", tmp_path / "backbone.safetensors"
    torch.save(made.checkpoint, path)
    conversion = open_backbone(path, Selection(num_heads=made.num_heads))
    assert (conversion.source.format, conversion.spec) == (made.layout, made.spec)
    write_conversion(conversion, path, output)
    reference = network_of(made.spec, made.weights)
    # Merging DINOv2's CLS position into the token rounds once.
    torch.testing.assert_close(features(load_backbone(output)), features(reference), atol=1e-5, rtol=1e-5)


def test_every_layout_is_made_and_its_epochs_are_completed_ones() -> None:
    """Some layouts state the index of the last epoch instead."""
    assert {made.layout for made in MADE.values()} == set(LAYOUTS) - {"convnext", "detectron2_msra"}
    expected = {"dino": 3, "dino_vissl": 300, "moby": 300, "mae": 800, "densecl": 200, "mmpretrain_vit": 100, "timm_vit": -1}
    assert {name: convert_content(MADE[name].checkpoint).source.epoch for name in expected} == expected


@pytest.mark.parametrize("name", MADE)
def test_nothing_but_the_layouts_own_names_is_taken(name: str) -> None:
    """An additional tensor beside the backbone's is an error, not ignored."""

    def with_stranger(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        if any(hasattr(value, "dtype") for value in node.values()):
            first = next(iter(node))
            return {**node, f"{first.rpartition('.')[0]}.stranger".lstrip("."): torch.ones(2)}
        return {key: with_stranger(value) for key, value in node.items()}

    checkpoint = with_stranger(MADE[name].checkpoint)
    with pytest.raises(ValueError, match="stranger"):
        convert_content(checkpoint, Selection(num_heads=MADE[name].num_heads))


@pytest.mark.parametrize("name", ["dino", "pw_self", "ibot", "esvit", "selfpatch", "moco", "resim", "densecl"])
def test_other_branches_can_be_chosen(name: str) -> None:
    """The made checkpoints fill the branches that are not the default with zeros."""
    made = MADE[name]
    default, other = LAYOUTS[made.layout].branches
    assert convert_content(made.checkpoint).source.branch == default
    chosen = convert_content(made.checkpoint, Selection(branch=other))
    assert (chosen.source.branch, chosen.spec) == (other, made.spec)
    assert not any(tensor.any() for tensor in chosen.state_dict.values())
    with pytest.raises(ValueError, match=f"no branch 'ema'; it has {default}, {other}"):
        convert_content(made.checkpoint, Selection(branch="ema"))


def test_a_teacher_with_batch_normalisation_is_wrapped_too() -> None:
    """DINO's authors put DistributedDataParallel around it then, as around every student."""
    checkpoint = MADE["dino_resnet"].checkpoint
    conversion = convert_content({**checkpoint, "teacher": prefixed("module.", checkpoint["teacher"])})
    assert (conversion.source.format, conversion.source.branch, conversion.spec) == ("dino", "teacher", RESNET)
    assert conversion.dropped["head.*"] == ("head.x",)


def test_layouts_and_headers_load_no_torch() -> None:
    """`--help` lists the layouts, and evaluation checks a backbone file's header before it starts."""
    code = "import sys, backbones.file, backbones.layouts, backbones.spec; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"stages.0.0.dwconv.weight": torch.ones(1), "norms.3.weight": torch.ones(1)}, "ConvNeXt"),  # the authors'
        ({"state_dict": {"stages.0.blocks.0.conv_dw.weight": torch.ones(1)}}, "ConvNeXt"),  # timm's
        ({"stages.0.layers.0.depthwise_conv.weight": torch.ones(1)}, "ConvNeXt"),  # Hugging Face's
        ({**MADE["detectron2"].checkpoint, "__author__": "Caffe2"}, r"MSRA.*strides"),
    ],
)
def test_other_networks_are_refused_by_name(checkpoint: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_content(checkpoint)


def test_moco_v3_small_has_twelve_heads() -> None:
    """And a state dict stripped of the sign of it is not given six."""
    spec = replace(VIT, embed_dim=384, depth=1, num_heads=12, image_size=32)
    weights = weights_of(spec)
    weights["pos_embed"][:, 0] = 0
    checkpoint = {"state_dict": prefixed("module.base_encoder.", weights), "arch": "vit_small", "epoch": 300}
    assert convert_content(checkpoint).spec == spec
    with pytest.raises(ValueError, match=r"12 heads.*--num-heads"):
        convert_content(weights)
    assert convert_content(weights, Selection(num_heads=12)).spec == spec


def test_a_vit_without_its_final_norm_is_incomplete() -> None:
    weights = {name: tensor for name, tensor in MADE["timm_vit"].weights.items() if not name.startswith("norm.")}
    with pytest.raises(ValueError, match=r"neither norm\.weight nor fc_norm\.weight"):
        convert_content(weights)
    pooled = convert_content(weights | {"fc_norm.weight": torch.ones(64), "fc_norm.bias": torch.ones(64)})
    assert isinstance(pooled.spec, ViTSpec)
    assert not pooled.spec.final_norm


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("timm_vit", {"patch_embed.proj.weight": torch.ones(3)}, "not the weights of a ViT"),
        ("timm_swin", {"layers.0.blocks.0.attn.relative_position_bias_table": torch.ones(3)}, "not the weights of a Swin"),
        ("dinov2_registers", {"cls_token": None}, "cls_token and the first of the positions"),
        ("huggingface_vit_bare", {"encoder.layer.1.attention.attention.key.weight": None}, r"no blocks\.1\.attn\.key\.weight"),
        ("moby_swin", {"encoder.layers.0.blocks.1.attn_mask": torch.ones(3, 16, 16)}, "not a mask for windows of side 4"),
        ("dinov2", {"blocks.0.1.norm1.weight": torch.ones(64)}, r"are both the layout's blocks\.1\.norm1\.weight"),
        ("torchvision_resnet", {"layer1.2.bn1.bias": torch.ones(64)}, r"layer1\.N is not numbered 0 to 1 without gaps"),
    ],
)
def test_incomplete_weights_are_named(name: str, change: dict[str, torch.Tensor | None], message: str) -> None:
    checkpoint = MADE[name].checkpoint
    group = next((key for key in ("state_dict", "model") if key in checkpoint), None)
    weights = {**(checkpoint[group] if group else checkpoint), **change}
    weights = {key: tensor for key, tensor in weights.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        convert_content({**checkpoint, group: weights} if group else weights)


def test_unknown_layouts_are_described() -> None:
    checkpoint: Any = {"net": {f"backbone.encoder_q.layer1.{i}.conv1.weight": torch.ones(1) for i in range(9)}, "epoch": 1}
    with pytest.raises(ValueError, match="no known layout") as caught:
        convert_content(checkpoint)
    message = str(caught.value)
    assert "the top-level keys epoch, net; in net: backbone.encoder_q.layer1.0.conv1.weight" in message
    for checkpoint, description in (({}, "nothing"), (3, "a int")):
        with pytest.raises(ValueError, match=f"holds {description}$"):
            convert_content(checkpoint)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.bits8, torch.bool, torch.complex64])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("dinov3", "rope_embed.periods"),
        ("dinov3", "blocks.0.attn.qkv.bias_mask"),
        ("huggingface_vit", "vit.encoder.layer.0.attention.attention.query.bias"),
    ],
)
def test_weights_with_which_torch_cannot_compute_are_named(kind: torch.dtype, name: str, tensor: str) -> None:
    weights = MADE[name].checkpoint
    odd = torch.zeros(weights[tensor].shape, dtype=torch.uint8)
    odd = odd.view(kind) if kind.itemsize == 1 else odd.to(kind)
    with pytest.raises(LayoutError, match=rf"not stored as floating-point numbers: .* \({kind}\)"):
        convert_content({**weights, tensor: odd})


def test_two_matches_are_an_error() -> None:
    checkpoint = {**MADE["moco"].checkpoint, **MADE["moby"].checkpoint}
    with pytest.raises(ValueError, match=r"several layouts match: moco, moby; choose one with --format.*keys arch, epoch"):
        convert_content(checkpoint)
    assert convert_content(checkpoint, Selection(layout="moby")).spec == MADE["moby"].spec
    with pytest.raises(ValueError, match="not in the timm layout"):
        convert_content(checkpoint, Selection(layout="timm"))
    with pytest.raises(ValueError, match="unknown layout 'swim'; known: patchbench"):
        convert_content(checkpoint, Selection(layout="swim"))
    for name, general in (("ibot", "dino"), ("resim", "moco"), ("mae", "timm")):  # which the layout specialises
        with pytest.raises(ValueError, match=f"not in the {general} layout"):
            convert_content(MADE[name].checkpoint, Selection(layout=general))


def test_half_precision_of_a_safetensors_file_is_widened(tmp_path: Path) -> None:
    path, output = tmp_path / "half.safetensors", tmp_path / "out.safetensors"
    save_file({name: tensor.half() for name, tensor in MADE["huggingface_vit"].checkpoint.items()}, path)
    write_conversion(open_backbone(path), path, output)
    assert all(tensor.dtype == torch.float32 for tensor in read_backbone_file(output).state_dict.values())
