"""Files that are not what they seem: what they embed is rebuilt or refused by name, always in one line."""

import argparse
import pickle
import re
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backbones.checkpoint import load_checkpoint
from backbones.convert import open_backbone
from tests.layouts import make_all

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
