"""Reading somebody's checkpoint without running any code in it.

The loaders of torch, Python and NumPy never see an untrusted pickle: they call what it names with the arguments that it invents.
`backbones.pickles` reads the objects, and the functions below make tensors of them, after comparing every type, size and stride with
the bytes that there are. What published checkpoints embed beside tensors becomes plain values, or an empty stand-in where it is a
configuration, whose values and packages PatchBench does not need; anything else is refused by name.
"""

import errno
import io
import mmap
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from backbones.file import has_sane_header
from backbones.pickles import (
    MOST_STEPS,
    CheckpointError,
    Global,
    Ignored,
    PickledModule,
    checked_sizes,
    damaged,
    of_type,
    unpickle,
)
from common.files import one_line, parse_json

__all__ = ["CheckpointError", "load_checkpoint"]

# What downloads leave behind instead of a checkpoint: how such files begin, in lower case.
_MISTAKEN_FILES = {
    (b"version https://git-lfs",): "a git-lfs pointer, not the checkpoint; fetch it with `git lfs pull`",
    (b"<!doctype", b"<html", b"<?xml", b"<head"): "an HTML page, not a checkpoint; the download address led to a web page",
    (b"\x1f\x8b", b"bzh", b"\xfd7zxz"): "a compressed file; unpack it first",
    (b"\x93numpy",): "a single NumPy array, not a checkpoint",
    (b"\x89hdf",): "an HDF5 file, as Keras writes it; PatchBench reads networks of PyTorch",
    (b"gguf",): "a GGUF file of llama.cpp; PatchBench reads networks of PyTorch",
}
# What other programs keep in zip archives: a name that no checkpoint of torch's has in it.
_OTHER_ARCHIVES = {
    r"[^/]*/constants\.pkl": "a TorchScript program; save its weights with `torch.save(torch.jit.load(FILE).state_dict(), NEW)`",
    r".*serialized_exported_program\.json|.*/models/.*\.json": "a program of torch.export; save its `state_dict` with torch.save",
    r".*\.npy": "a NumPy archive (.npz), as JAX's releases are; load it into a network of timm and save that one's state_dict",
}
_ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x1a:B]")  # a protocol buffer with a version and the name of its producer
_FOLDERS = {  # what a folder with such a file in it is
    "*.distcp": "the shards of torch.distributed.checkpoint; join them with "
    "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER NEW.pth`",
    "*model_states.pt": "DeepSpeed's; join it with the `zero_to_fp32.py` in it",
}
# How Hugging Face's libraries call the weights in a folder; the first is taken.
_IN_FOLDERS = tuple(f"{name}{end}" for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json"))
_HEAD_BYTES = 512
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # with which torch's files begin if they are not zip archives
_LEGACY_PROTOCOL = 1001
# torch.save does not compress, so the content is as large as the file.
_LARGEST_EXPANSION = 10
_DEEPEST = 100  # containers in containers
_WITH_PARTS = (Mapping, list, tuple, Tensor, np.ndarray)


class _Storage(NamedTuple):
    dtype: torch.dtype
    content: Tensor  # Its bytes, uint8 [n].


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, _: Any = None, __: Any = None, *more: Any) -> Tensor:
    """A view of a storage, all of which lies in it.

    After the stride come a gradient's need and its hooks, in version 3 the type, and marks of a lazy conjugation or negation.
    """
    dtype, content = of_type(storage, _Storage)
    marks = list(more)
    if more and isinstance(more[0], torch.dtype):
        dtype = marks.pop(0)
    if any(marks):
        raise CheckpointError("holds a tensor that is conjugated or negated only when it is read; refused")
    sizes = checked_sizes(size)
    strides = checked_sizes(stride)
    (start,) = checked_sizes((offset,))
    last = start + sum((side - 1) * step for side, step in zip(sizes, strides, strict=True))
    numbers = content[: len(content) // dtype.itemsize * dtype.itemsize].view(dtype)
    if 0 in sizes:
        return numbers.new_empty(sizes)
    if last >= len(numbers):
        raise CheckpointError(f"holds a tensor of shape {sizes} that reaches beyond its {len(content):,} bytes; refused")
    return numbers.as_strided(sizes, strides, start)


def _same_tensor(tensor: Any, *_: Any) -> Tensor:
    """A parameter, or a tensor of another device: only its values matter."""
    return of_type(tensor, Tensor)


def _with_attributes(make: Any, _: Any, arguments: Any, __: Any) -> Tensor:
    """A tensor with attributes in Python, which are left out."""
    if of_type(make, Global).make not in (_tensor, _same_tensor):
        raise CheckpointError(f"makes a tensor by {make.name}; refused")
    return make.make(*of_type(arguments, tuple))


def _attribute(owner: Any, name: Any) -> Any:
    """A method of mmengine's histories, which their pickles refer to; nothing else is looked up, and this one is not called."""
    if of_type(owner, Global).name != _HISTORY:
        raise CheckpointError(f"embeds the object builtins.getattr of {owner.name}; refused, nothing in it was run")
    return of_type(name, str)


_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"  # in every file that mmengine's runner writes, as `message_hub`
_CONFIGURATIONS = (
    "argparse.Namespace",  # DINO, SelfPatch, iBOT, MAE
    "yacs.config.CfgNode",  # MoBY
    "omegaconf.dictconfig.DictConfig",  # fairseq, VISSL
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "typing.Any",
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path")),
)
_SAME_TENSOR = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch.nn.parameter.Parameter",
)
_FUNCTIONS: dict[str, Callable[..., Any] | None] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    **dict.fromkeys(_SAME_TENSOR, _same_tensor),
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch.Tensor": None,
    "torch.Size": lambda sizes: torch.Size(checked_sizes(sizes)),
    "torch.device": Ignored,
    "builtins.getattr": _attribute,
    **dict.fromkeys(_CONFIGURATIONS, Ignored),
    # omegaconf states the types of its values.
    **dict.fromkeys(f"builtins.{kind}" for kind in ("dict", "list", "tuple", "str", "int", "float", "bool")),
}
_NAMES: dict[str, Any] = {
    **_DTYPES,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.storage.UntypedStorage": torch.uint8,
    **{name: Global(name, make) for name, make in _FUNCTIONS.items()},
}


def load_checkpoint(path: Path) -> Any:
    """Load a checkpoint on the CPU: torch's, a pickle or safetensors, whatever it is called; or the shards that an index lists.

    A folder of Hugging Face's libraries becomes `{"model": weights, "config": config.json}`. Parameters become plain tensors.
    CheckpointError, in one line that names the file, if it is absent, not a checkpoint, damaged,
    larger inside than outside, or embeds an object outside the allow-list.
    """
    if path.is_dir() and (inside := next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)):
        config = path / "config.json"
        return {"model": load_checkpoint(inside), "config": _json(config) if config.is_file() else {}}
    for pattern, what in _FOLDERS.items():
        if path.is_dir() and any(path.rglob(pattern)):
            raise CheckpointError(f"{path}: a folder, {what}")
    if not path.is_file():
        if path.exists():
            raise CheckpointError(f"{path}: no such checkpoint file, but something else, such as a folder or a pipe")
        raise CheckpointError(f"{path}: no such checkpoint file (looked for {path.absolute()})")
    if path.name.endswith(".index.json"):
        return _load_shards(path)
    try:
        size = path.stat().st_size
        checkpoint = _load(path, size)
        _check_content(checkpoint, size)
        if isinstance(checkpoint, PickledModule):
            raise CheckpointError("a pickled module; save its `state_dict()` instead, with the code that the module is from")
        return checkpoint
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {one_line(str(error))}") from error
    except PermissionError:
        raise
    except Exception as error:  # whatever a reader raises for a file cut short or scrambled, depending on where
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            raise CheckpointError(f"{path}: does not fit into memory") from error
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: {damaged(one_line(first_line, 200))}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable JSON ({one_line(str(error), 200)}); copy or download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def _load_shards(index: Path) -> dict[str, Tensor]:
    """The tensors that an index says lie in the files beside it; no more and no fewer."""
    names = _json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(file, str) and Path(file).name == file for file in names.values()):
        raise CheckpointError(f"{index}: its weight_map must name files in the same folder; copy or download it again")
    weights: dict[str, Tensor] = {}
    for file in sorted(set(names.values())):
        shard = load_checkpoint(index.with_name(file))
        own = {name for name in names if names[name] == file}
        if not isinstance(shard, Mapping) or set(shard) != own:
            raise CheckpointError(f"{index}: {file} holds other tensors than it says; copy or download both again")
        weights |= shard
    return weights


def _load(path: Path, size: int) -> Any:
    form = _form(path)
    if form == "safetensors":
        return load_file(path)
    with path.open("rb") as stream:
        if form == "zip":
            return _load_zip(stream, size)
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            # Such as Detectron2's files, which torch did not write.
            first = unpickle(pages, size, _NAMES)
            return _load_legacy(stream, pages, size) if type(first) is int and first == _LEGACY_MAGIC else first


def _form(path: Path) -> str:
    """How a file is stored, by its first bytes; what is no checkpoint is refused by name."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise CheckpointError("empty file")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginnings, what in _MISTAKEN_FILES.items():
        if text.startswith(beginnings):
            raise CheckpointError(what)
    if head[8:9] == b"{" and has_sane_header(path):
        return "safetensors"
    if head.startswith((b"\x80", b"PK")):
        return "zip" if head.startswith(b"PK") else "pickle"
    if _ONNX.match(head):
        raise CheckpointError("an ONNX graph, not a checkpoint of PyTorch; convert the checkpoint that it was exported from")
    if head.isascii() and b"\0" not in head:
        raise CheckpointError("a text file, not a checkpoint")
    raise damaged("of no known format")


def _load_zip(stream: io.BufferedReader, size: int) -> Any:
    """An archive of torch's: `NAME/data.pkl`, and the bytes of each storage in `NAME/data/KEY`."""
    with zipfile.ZipFile(stream) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        for pattern, what in _OTHER_ARCHIVES.items():
            if any(re.fullmatch(pattern, name) for name in entries):
                raise CheckpointError(what)
        inside = sum(entry.file_size for entry in archive.infolist())
        if inside > _LARGEST_EXPANSION * size:
            packed = f"a zip archive of {size:,} bytes that would unpack to {inside:,}"
            raise CheckpointError(f"{packed}; torch does not compress, so it is not torch's; refused, nothing was unpacked")
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(entries) != len(archive.infolist()):
            raise damaged("a zip archive, but not one that torch wrote")
        folder = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{folder}byteorder")
        is_swapped = order is not None and bytes(_entry(stream, archive, order).numpy()) == b"big"

        def content(key: str, dtype: torch.dtype, _: int) -> Tensor:
            found = _entry(stream, archive, entries[f"{folder}data/{key}"])
            width = dtype.itemsize // (2 if dtype.is_complex else 1)
            return found.view(-1, width).flip(1).flatten() if is_swapped else found

        objects = bytes(_entry(stream, archive, entries[pickles[0]]).numpy())
        return unpickle(io.BytesIO(objects), len(objects), _NAMES, partial(_storage, {}, content))


def _entry(stream: io.BufferedReader, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Tensor:
    """The bytes of an entry, read at once where they are as they are; zipfile's own reader is half as fast."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError("a zip archive, packed as torch does not pack; refused")
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        return torch.frombuffer(bytearray(archive.read(entry)) or bytearray(1), dtype=torch.uint8)[: entry.file_size]
    stream.seek(entry.header_offset)
    head = struct.unpack("<4s22xHH", stream.read(30))
    if head[0] != b"PK\3\4":
        raise damaged("its table of contents is not that of its entries")
    stream.seek(sum(head[1:]), io.SEEK_CUR)
    content = torch.empty(entry.file_size, dtype=torch.uint8)
    _fill(stream, content)
    return content


def _load_legacy(stream: io.BufferedReader, pages: mmap.mmap, size: int) -> Any:
    """A file of torch before 1.6, behind its magic number: more pickles, and then the storages in a stated order."""
    if unpickle(pages, size, _NAMES) != _LEGACY_PROTOCOL:
        raise damaged("an unknown version of torch's format")
    unpickle(pages, size, _NAMES)  # facts of the machine that wrote it
    storages: dict[str, _Storage] = {}
    num_bytes = 0

    def content(_: str, dtype: torch.dtype, count: int) -> Tensor:
        nonlocal num_bytes
        num_bytes += count * dtype.itemsize
        if num_bytes > size:
            raise damaged(f"tensors of {num_bytes:,} bytes in {size:,}")
        return torch.empty(count * dtype.itemsize, dtype=torch.uint8)

    checkpoint = unpickle(pages, size, _NAMES, partial(_storage, storages, content))
    keys = of_type(unpickle(pages, size, _NAMES), list)
    if sorted(of_type(key, str) for key in keys) != sorted(storages):
        raise damaged("its list of tensors is not that of its objects")
    stream.seek(pages.tell())
    for dtype, whole in map(storages.__getitem__, keys):
        if struct.unpack("<q", stream.read(8)) != (len(whole) // dtype.itemsize,):
            raise damaged("its tensors have other sizes than stated")
        _fill(stream, whole)
    return checkpoint


def _fill(stream: io.BufferedReader, content: Tensor) -> None:
    if len(content) and stream.readinto(content.numpy().data) != len(content):
        raise damaged("it ends within a tensor")


def _storage(storages: dict[str, _Storage], content: Callable[[str, torch.dtype, int], Tensor], described: Any) -> _Storage:
    """The storage that a pickle of torch's refers to by type, key, number of elements and, in old files, a part of them.

    `content` reads or makes what is not yet among `storages`.
    """
    kind, dtype, key, _, count, *view = of_type(described, tuple)
    if kind != "storage":
        raise CheckpointError("refers to something that is no tensor's storage; refused")
    width = of_type(dtype, torch.dtype).itemsize
    checked_sizes((count,))
    if of_type(key, str) not in storages:
        storages[key] = _Storage(dtype, content(key, dtype, count))
    whole = storages[key].content
    start, length = 0, count
    if view and view[0] is not None:
        start, length = checked_sizes(view[0][1:])
    if len(whole) != count * width or start + length > count:
        raise damaged(f"{count:,} numbers of {dtype} in {len(whole):,} bytes")
    return _Storage(dtype, whole[start * width : (start + length) * width])


def _check_content(checkpoint: Any, size: int) -> None:
    """Refuse what would take whoever reads or copies it more time, depth or memory than the file accounts for.

    Level by level, and each part as often as it is referred to: a few references to references can stand for millions of tensors.
    """
    num_parts = num_bytes = 0
    level: dict[int, tuple[Any, int]] = {0: (checkpoint, 1)}
    for _ in range(_DEEPEST):
        below: dict[int, tuple[Any, int]] = {}
        for node, times in level.values():
            children: Iterable[Any] = ()
            if isinstance(node, (Tensor, np.ndarray)):
                num_bytes += times * node.nbytes
            elif isinstance(node, Mapping):
                children = node.values()
            elif isinstance(node, (list, tuple)):
                children = node
            for child in children:
                num_parts += times
                if isinstance(child, _WITH_PARTS):
                    _, known = below.get(id(child), (None, 0))
                    below[id(child)] = child, known + times
            if num_parts > 2 * MOST_STEPS or num_bytes > _LARGEST_EXPANSION * size:
                needed = f"{num_parts:,} parts that need {num_bytes:,} bytes"
                raise CheckpointError(f"refers to the same again and again: {needed}; the file has {size:,}; refused")
        if not below:
            return
        level = below
    raise CheckpointError(f"nests its parts deeper than {_DEEPEST} levels, or in themselves; refused")
