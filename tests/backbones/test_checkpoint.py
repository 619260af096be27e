"""Files that are not what they seem: what they embed is rebuilt or refused by name, always in one line."""

import argparse
import json
import pickle
import re
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from backbones.checkpoint import load_checkpoint
from backbones.convert import Selection, open_backbone, write_conversion
from backbones.file import load_backbone
from tests.layouts import VIT, make_all

MADE = make_all()


def refused(path: Path, match: str) -> str:
    with pytest.raises(ValueError, match=match) as caught:
        open_backbone(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.fixture
def foreign_classes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type]:
    """Classes of packages that need not be installed, under their real names, for writing only."""

    def make(full_name: str, base: type = object) -> type:
        module_name, _, name = full_name.rpartition(".")
        for end in [*re.finditer(r"\.", module_name), None]:
            package = module_name[: end.start() if end else None]
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        made = type(name, (base,), {"__module__": module_name})
        monkeypatch.setattr(sys.modules[module_name], name, made, raising=False)
        return made

    return make


@pytest.mark.parametrize("zipped", [True, False])
def test_what_real_files_embed_is_read(tmp_path: Path, foreign_classes: Any, zipped: bool) -> None:
    config_node = foreign_classes("yacs.config.CfgNode", dict)
    dict_config = foreign_classes("omegaconf.dictconfig.DictConfig")
    list_config, any_node = foreign_classes("omegaconf.listconfig.ListConfig"), foreign_classes("omegaconf.nodes.AnyNode")
    leaf, items, config, described = any_node(), list_config(), dict_config(), foreign_classes("omegaconf.base.Metadata")()
    described.__dict__.update(ref_type=Any, object_type=dict, optional=True, key_type=Any, element_type=Any, flags={})
    leaf.__dict__.update(_val=3, _parent=config)
    items.__dict__.update(_content=[leaf], _metadata=described)
    config.__dict__.update(_content={"depth": leaf, "crops": items}, _metadata=described, _parent=None)
    checkpoint = {
        **MADE["dino"].checkpoint,
        "args": argparse.Namespace(arch="vit_small", lr=5e-4),
        "config": config_node({"MODEL": config_node({"TYPE": "moby"})}),
        "cfg": config,
        "best": np.float64(74.5),
        "history": np.arange(6, dtype=np.float32).reshape(2, 3),
        "step": np.int64(7),
    }
    path = tmp_path / "embedding.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(path)
    assert loaded["best"] == 74.5
    assert np.array_equal(loaded["history"], checkpoint["history"])
    assert open_backbone(path).spec == MADE["dino"].spec


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    refused(path, r"would unpack to 50,000,000.*nothing was unpacked")


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        # One number, repeated by strides of zero: 4 TB as soon as anybody makes it contiguous.
        (torch.ones(1).expand(10**6, 10**6), r"parts that need 4,000,000,\d{3},\d{3} bytes"),
        (torch.eye(3).to_sparse(), "sparse, quantised|damaged|allow-list"),
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "sparse, quantised|damaged|allow-list"),
        (torch.tensor([0.0, float("nan")]), r"not finite numbers: norm\.bias"),
        (torch.tensor([0.0, float("-inf")]), r"not finite numbers: norm\.bias"),
        (torch.full((64,), 1e300, dtype=torch.float64), r"not finite numbers: norm\.bias"),
        (torch.ones(64, dtype=torch.int64), r"not stored as floating-point numbers: norm\.bias \(torch\.int64\)"),
    ],
    ids=["huge", "sparse", "quantised", "nan", "infinite", "beyond float32", "integers"],
)
def test_tensors_that_cannot_be_weights_are_refused(tmp_path: Path, tensor: torch.Tensor, match: str) -> None:
    path = tmp_path / "odd.pth"
    torch.save({**MADE["timm_vit"].weights, "norm.bias": tensor.repeat(32) if len(tensor) == 2 else tensor}, path)
    refused(path, match)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty file"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "HTML page"),
        (b"\xef\xbb\xbf\n <HTML><body>Quota exceeded</body>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 88\n", "git lfs pull"),
        (b"\x1f\x8b\x08\x00rest", "compressed file; unpack it"),
        (b'{"error": "not found"}', "text file"),
        (b"\x93NUMPY\x01\x00", "a single NumPy array"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x08\x08\x12\x07pytorch", "an ONNX graph"),
        (b"\x80\x04\x95", "damaged"),
        (b"\x80\x02garbage", "damaged"),
        (b"PK\x03\x04garbage", "damaged"),
        (struct.pack("<Q", 2**60) + b"{}", "damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_what_downloads_leave_behind(tmp_path: Path, content: bytes, match: str, suffix: str) -> None:
    path = tmp_path / f"download{suffix}"
    refused(tmp_path, "no such checkpoint file")
    refused(path, "no such checkpoint file")
    path.write_bytes(content)
    refused(path, "damaged|text file" if suffix == ".safetensors" and match == "text file" else match)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_detectron2s_own_pickle(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "detectron2.pkl"
    path.write_bytes(pickle.dumps(MADE["detectron2"].checkpoint, protocol=protocol))
    conversion = open_backbone(path)
    assert conversion.spec == MADE["detectron2"].spec
    assert all(torch.equal(conversion.state_dict[name], tensor) for name, tensor in MADE["detectron2"].weights.items())


@pytest.mark.parametrize("name", ["model.bin", "MODEL.SAFETENSORS", "model.pth", "weights"])
def test_what_a_file_is_follows_from_its_content(tmp_path: Path, name: str) -> None:
    """Safetensors whose header has any length, a length that begins as a pickle does included, and pickles."""
    weights = MADE["timm_vit"].weights
    for count in range(0, 300, 37):
        save_file(weights, tmp_path / name, metadata={"note": "x" * count})
        assert load_checkpoint(tmp_path / name).keys() == weights.keys()
    torch.save(weights, tmp_path / name)
    assert open_backbone(tmp_path / name).spec == MADE["timm_vit"].spec


def test_shards_and_folders_of_hugging_face(tmp_path: Path) -> None:
    made = MADE["huggingface_vit"]
    names = list(made.checkpoint)
    shards = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, own in shards.items():
        save_file({name: made.checkpoint[name] for name in own}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, own in shards.items() for name in own}}))
    config = {"model_type": "vit", "num_attention_heads": 4, "layer_norm_eps": 1e-12}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = open_backbone(tmp_path)
    assert found.spec == replace(VIT, num_heads=4, norm_epsilon=1e-12)
    assert not found.heads_assumed
    assert open_backbone(tmp_path, Selection(num_heads=2)).spec.num_heads == 2  # type: ignore[union-attr]
    assert open_backbone(index).spec == made.spec
    assert all(torch.equal(found.state_dict[name], tensor) for name, tensor in made.weights.items())
    source = write_conversion(found, tmp_path, tmp_path / "out" / "vit.safetensors")
    assert load_backbone(tmp_path / "out" / "vit.safetensors").norm.eps == 1e-12  # type: ignore[union-attr]
    assert (source.file_name, len(source.sha256)) == (tmp_path.name, 64)
    for stated in ({"layer_norm_eps": "small"}, {"hidden_act": "quick_gelu"}):
        (tmp_path / "config.json").write_text(json.dumps(stated))
        refused(tmp_path, r"config\.json: our vit has no .*(small|quick_gelu)")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "../x.safetensors")}))
    refused(index, "must name files in the same folder")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}))
    refused(index, "holds other tensors than it says")


def test_what_other_programs_write_is_named(tmp_path: Path) -> None:
    """Each in one line that says what it is, not that it is damaged."""
    program = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(program, tmp_path / "model.pth")
    refused(tmp_path / "model.pth", "a TorchScript program; save its weights")
    np.savez(tmp_path / "model.npz", kernel=np.ones(3))
    refused(tmp_path / "model.npz", r"a NumPy archive \(\.npz\)")
    shards = tmp_path / "step_100"
    shards.mkdir()
    (shards / "__0_0.distcp").write_bytes(b"x")
    refused(shards, "torch.distributed.checkpoint; join them")


@pytest.mark.parametrize("protocol", [2, 4])
def test_histories_of_mmengine_are_left_out(tmp_path: Path, protocol: int) -> None:
    history = pytest.importorskip("mmengine.logging").HistoryBuffer([0.5], [1])
    checkpoint = {**MADE["mmpretrain_vit"].checkpoint, "message_hub": {"log_scalars": {"train/loss": history}}}
    torch.save(checkpoint, path := tmp_path / "epoch_3.pth", pickle_protocol=protocol)
    assert open_backbone(path).source.format == "mmpretrain"


def test_modules_that_are_pickled_beside_weights_are_left_out(tmp_path: Path) -> None:
    """lightly-train keeps its whole networks under `lightly_train` (`_checkpoint.py`), Lightning its hyperparameters."""
    network = timm.create_model("test_vit", num_classes=0)
    checkpoint = {"state_dict": {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}}
    torch.save({**checkpoint, "lightly_train": {"models": {"model": network}}}, path := tmp_path / "last.ckpt")
    found = open_backbone(path, Selection(num_heads=2)).state_dict
    assert all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items())
    torch.save(network, path)
    refused(path, "a pickled module; save its `state_dict")
