"""Files that were made to harm end in one line, soon, and in little memory; `long` tries thousands of changed files of each format.

They are opened in another process, whose crash, hang or traceback is a failure.
"""

import io
import json
import os
import pickle
import pickletools
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from backbones.convert import open_backbone
from backbones.file import write_backbone_file
from tests.layouts import VIT, make_all
from tests.processes import fork
from tests.toy import SOURCE

MEMORY = 2**31  # bytes beyond what the imports need
LONGEST_S = 10


def plain(value: Any) -> bytes:
    """The instructions that make a text, bytes, a number or a tuple of them."""
    return pickletools.optimize(pickle.dumps(value, protocol=3))[2:-1]


def named(name: str) -> bytes:
    return "c{}\n{}\n".format(*name.rsplit(".", 1)).encode()


def group(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(name: str, *arguments: bytes) -> bytes:
    return named(name) + group(*arguments) + b"R"


def kind_of(code: str) -> bytes:
    return call("numpy.dtype", plain(code), b"\x89\x88") + plain((3, "<", None, None, None, -1, -1, 0)) + b"b"


def array(length: int, code: str, content: bytes) -> bytes:
    empty = call("numpy.core.multiarray._reconstruct", named("numpy.ndarray"), plain((0,)), plain(b"b"))
    return empty + group(plain(1), plain((length,)), kind_of(code), b"\x89", content) + b"b"


def tensor(count: int, offset: int, size: list[int], stride: list[int]) -> bytes:
    """A view of a storage of so many numbers; the file has 4."""
    storage = group(plain("storage"), named("torch.FloatStorage"), plain("0"), plain("cpu"), plain(count), b"N") + b"Q"
    places = plain(offset), plain(tuple(size)), plain(tuple(stride))
    return call("torch._utils._rebuild_tensor_v2", storage, *places, b"\x89", call("collections.OrderedDict"))


def repeated(start: bytes, step: bytes) -> bytes:
    """An object that refers twice to one that refers twice to one and so on."""
    levels = [b"0" + start + b"q" + bytes([level + 1]) + step.replace(b"?", b"h" + bytes([level])) for level in range(90)]
    return start + b"q\x00" + b"".join(levels)


ATTACKS: dict[str, tuple[bytes, str]] = {
    # Code.
    **{f"calls {name}": (call(name, plain("true")), name) for name in ("io.open", "builtins.eval", "numpy.load", "lab.ViT")},
    "name of several lines": (plain("os\n\x1b[31m" + "x" * 10_000) + plain("system") + b"\x93", "allow-list"),
    "unknown instruction": (b"\x82\x01", "EXT1"),
    # Memory corruption by NumPy's own functions.
    "array over a buffer": (call("numpy.ndarray", group(plain(1)), plain("O"), plain(b"A" * 8)), "calls numpy.ndarray"),
    "objects from bytes": (array(1, "O8", plain(b"A" * 8)), "no numbers"),
    "objects from a short list": (array(1000, "O8", b"]Na"), "no numbers"),
    "scalar of an object": (call("numpy.core.multiarray.scalar", kind_of("O8"), plain(b"A" * 8)), "no numbers"),
    "array that is too short": (array(1000, "f4", plain(b"A" * 8)), "needs 4,000 bytes, in 8"),
    "negative length": (array(-1, "f4", plain(b"A" * 8)), "impossible shape"),
    "large array": (call("numpy.core.multiarray._reconstruct", named("numpy.ndarray"), group(plain(2**46)), b"N"), "damaged"),
    "shape in a type": (call("numpy.dtype", plain("(99999,99999)f4"), b"\x89", b"\x88"), "no numbers"),
    "item of a type": (kind_of("f4") + b"NNs", "sets an item of"),
    "state of a type": (kind_of("f4") + b"Nb", "sets the state of"),
    # Memory and time.
    "memo of 4 GiB": (b"]r\xff\xff\xff\xff", "holds a list"),
    "2^62 bytes": (b"\x8e" + struct.pack("<Q", 2**62) + b"abc", "damaged"),
    "list of a gigabyte": (call("builtins.list", call("builtins.bytearray", plain(1_200_000_000))), "damaged"),
    "encodings": ((named("_codecs.encode") + b"(") * 60 + plain("a") + (plain("hex") + b"tR") * 60, "another encoding"),
    "deep key": (b"})" + b"\x85" * 200_000 + b"Ns", "as a key"),
    "deep list": (b"]" * 50_000 + b"a" * 49_999, "deeper than 100 levels"),
    "list in itself": (b"]q\x00h\x00a", "or in themselves"),
    "2^90 lists": (repeated(b"]", b"(??e"), "again and again"),
    "2^90 dictionaries": (repeated(b"}", b"(" + plain("a") + b"?" + plain("b") + b"?u"), "again and again"),
    "colliding keys": (b"}(" + b"".join(plain(k * (2**61 - 1)) + b"N" for k in range(99_999)) + b"u", "as a key"),
    "tuples as keys": (b"}(" + b"".join(plain(k) * 2 + b"\x86N" for k in range(60_000)) + b"u", "more time or memory"),
    "copies of a list": (
        b"](" + b"N" * 99_999 + b"eq\x000" + (named("builtins.set") + b"h\x00\x85R0") * 999 + b"N",
        "more time",
    ),
    "long keys": (plain("a" * 99_999) + b"q\x000}" + b"h\x00Ns" * 999, "only short text"),
    "copies of an array": (call("builtins.set", array(8, "i1", plain(b"A" * 8))), "type ndarray where a tuple belongs"),
    "huge epoch": (b"}" + plain("epoch") + b"\x8a\x3e" + b"\x7f" * 62 + b"s", "no known layout"),
    # Tensors that do not lie in their storage.
    "tensor": (b"}" + plain("whole") + tensor(4, 0, [4], [1]) + b"s", "holds the top-level keys whole"),
    "tensor in a large storage": (tensor(2**45, 0, [4], [1]), "damaged"),
    "tensor in a negative storage": (tensor(-4, 0, [4], [1]), "impossible shape"),
    "tensor of one more": (tensor(4, 0, [5], [1]), "reaches beyond its 16 bytes"),
    "tensor backwards": (tensor(4, 3, [4], [-1]), "impossible shape"),
    "tensor far away": (tensor(4, 2**61, [4], [1]), "impossible shape"),
    "tensor of one number": (tensor(4, 0, [2**20, 2**20], [0, 0]), "need 4,398,046,511,104 bytes"),
    "tensor of 2^96": (tensor(4, 0, [2**32] * 3, [0] * 3), "damaged"),
    "tensor of other strides": (tensor(4, 0, [4, 4], [1]), "damaged"),
}
LEGACY = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))


def zipped(stream: bytes, **entries: bytes) -> bytes:
    """What torch.save makes of a pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", stream)
        for key, value in entries.items():
            archive.writestr(f"archive/data/{key.removeprefix('_')}", value)
    return content.getvalue()


def forms(stream: bytes) -> dict[str, bytes]:
    """An object in each format that embeds a pickle."""
    whole, content, has_storage = b"\x80\x03" + stream + b".", np.arange(4, dtype="<f4").tobytes(), b"Storage" in stream
    storages = b"\x80\x02]" + (plain("0") + b"a." + struct.pack("<q", 4) + content if has_storage else b".")
    return {"zip": zipped(whole, _0=content), "legacy": LEGACY + whole + storages} | ({} if has_storage else {"pickle": whole})


def in_child(log: Path, function: Callable[..., None], *arguments: object) -> str:
    """What a function prints in another process, of a limited memory."""
    process = fork(log, function, *arguments)
    process.join(1800)
    assert process.exitcode == 0, log.read_text()[-5000:]
    return log.read_text()


def limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def refusal(path: Path) -> str:
    """Why a file is refused, without its name; empty if it is not."""
    start = time.perf_counter()
    try:
        assert all(tensor.isfinite().all() for tensor in open_backbone(path).state_dict.values())
        return ""
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert message.isprintable()
        assert len(message) < len(str(path)) + 1000
        return message.removeprefix(f"{path}: ")
    finally:
        assert time.perf_counter() - start < LONGEST_S


def print_refusals(folder: Path) -> None:
    limit_memory()
    print(json.dumps({path.name: refusal(path) for path in folder.iterdir()}))


def test_attacks_end_in_one_line(tmp_path: Path) -> None:
    expected = {"a pipe": "no such checkpoint file", "a device.safetensors": "no such checkpoint file"}
    os.mkfifo(tmp_path / "a pipe")
    (tmp_path / "a device.safetensors").symlink_to("/dev/zero")
    for name, (stream, match) in ATTACKS.items():
        for form, content in forms(stream).items():
            (tmp_path / f"{name} ({form})").write_bytes(content)
            expected[f"{name} ({form})"] = match
    found = json.loads(in_child(tmp_path.with_suffix(".log"), print_refusals, tmp_path).splitlines()[-1])
    assert {name: found[name] for name, match in expected.items() if match not in found[name]} == {}


ODD_NUMBERS = (0, 1, -1, 7, 2**31, 2**40, 2**61 - 1, 2**200)
ODD_VALUES = (*ODD_NUMBERS, 2.0, 1e300, float("inf"), True, None, "no", "x" * 9999, [1] * 9, [2.0], {}, {"a": [[]]})
PIECES = (
    *(opcode.code.encode("latin1") for opcode in pickletools.opcodes if opcode.arg is None),
    *(opcode + b"\x01" for opcode in (b"q", b"h", b"K", b"\x82")),
    *map(plain, ODD_NUMBERS),
    *(stream for stream, _ in ATTACKS.values() if len(stream) < 200),
    *(named(f"torch._utils._rebuild_{name}") for name in ("tensor", "tensor_v3", "parameter", "qtensor", "sparse_tensor")),
    *map(named, ("torch.HalfStorage", "torch.float64", "argparse.Namespace", "builtins.set", "omegaconf.nodes.AnyNode")),
)


def changed_pickle(stream: bytes, chance: Random) -> bytes:
    """Instructions removed, repeated, replaced and added."""
    places = [position for _, _, position in pickletools.genops(stream)]
    steps = [stream[start:end] for start, end in zip(places, [*places[1:], len(stream)], strict=True)]
    for _ in range(chance.randint(1, 4)):
        place, kept = chance.randrange(1, len(steps)), chance.randrange(2)
        others = steps[chance.randrange(len(steps)) :][: chance.randrange(9)]
        steps[place : place + 1 - kept] = chance.choice([[], others, [chance.choice(PIECES)]])
    return b"".join(steps) + b"."


def changed_json(content: Any, chance: Random) -> Any:
    """A copy in which a value is odd, or a name is missing or new."""
    if not isinstance(content, dict) or not content:
        return chance.choice(ODD_VALUES)
    name = chance.choice(list(content))
    if chance.randrange(4):
        return {**content, name: changed_json(content[name], chance)}
    rest = {other: value for other, value in content.items() if other != name}
    return chance.choice([rest, {**rest, f"{name}x": content[name]}])


def changed(kind: str, whole: bytes, chance: Random) -> bytes:
    """A small file with other bytes, another end, other instructions, or another header."""
    start = chance.randrange(len(whole))
    match chance.randrange(8):
        case 0:
            return whole[:start] + chance.randbytes(chance.randrange(16)) + whole[start + chance.randrange(64) :]
        case 1:
            return whole[:start]
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            parts = {Path(name).name: archive.read(name) for name in archive.namelist()}
        return zipped(changed_pickle(parts.pop("data.pkl"), chance), **parts)
    if kind.startswith("pickle"):
        return changed_pickle(whole, chance)
    if kind == "legacy":
        stream = io.BytesIO(whole)
        ends = [(list(pickletools.genops(stream)), stream.tell())[1] for _ in range(5)]
        start, end = chance.choice([(ends[1], ends[2]), *[(ends[2], ends[3])] * 3, (ends[3], ends[4])])
        return whole[:start] + changed_pickle(whole[start:end], chance) + whole[end:]
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    if kind == "backbone":
        facts = json.dumps(changed_json(json.loads(header["__metadata__"]["patchbench"]), chance))
        header["__metadata__"]["patchbench"] = facts if chance.randrange(9) else facts.replace(":", ":[" * 5000, 1)
    else:
        header = changed_json(header, chance)
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + whole[8 + length :]


def wholes(folder: Path) -> dict[str, bytes]:
    """A small file of each format."""
    made, tensors = make_all()["dino"], {"a.weight": torch.ones(3, 2), "b": torch.zeros(4)}
    for name, is_zip in (("legacy", False), ("zip", True)):
        torch.save(made.checkpoint, folder / name, _use_new_zipfile_serialization=is_zip)
    write_backbone_file(folder / "backbone", VIT, SOURCE, made.weights)
    found = {name: (folder / name).read_bytes() for name in ("legacy", "zip", "backbone")} | {"safetensors": save(tensors)}
    arrays = {"model": {name: tensor.numpy() for name, tensor in tensors.items()}, "epoch": np.int64(3)}
    return found | {f"pickle{protocol}": pickle.dumps(arrays, protocol=protocol) for protocol in (2, 4, 5)}


def fuzz(folder: Path, count: int, *kinds: str) -> None:
    files = wholes(folder)
    limit_memory()
    for kind in kinds:
        for seed in range(count):
            path = folder / f"changed {seed}.{kind}"
            path.write_bytes(changed(kind, files[kind], Random(f"{kind} {seed}")))
            refusal(path)
            path.unlink()


KINDS = ("zip", "legacy", "pickle2", "pickle4", "pickle5", "safetensors", "backbone")


@pytest.mark.parametrize(
    ("count", "kinds"), [(40, KINDS), *(pytest.param(2000, [kind], marks=pytest.mark.long, id=kind) for kind in KINDS)]
)
def test_changed_files_end_in_one_line(tmp_path: Path, count: int, kinds: list[str]) -> None:
    in_child(tmp_path / "log", fuzz, tmp_path, count, *kinds)
