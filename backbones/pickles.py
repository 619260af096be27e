"""Pickles without their powers: a stack machine of our own that makes numbers, text, containers and NumPy arrays of numbers.

A pickle is a program. Python's unpickler calls whatever it names, and NumPy's own functions, fed with invented arguments, write to
any address. Here every global is a name in a table of ours, every argument is checked, and whatever a small file could blow up (the
number of steps, the bytes made, colliding keys) is counted. The opcodes are read by `pickletools`, which checks every length against
what is left of the stream.
"""

import io
import math
import mmap
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.files import one_line

MOST_STEPS = 2_000_000  # a ViT-g with the state of its optimiser needs some 100,000
_MOST_COPIES = 4  # bytes that may be made per byte of the stream: text becomes bytes, and bytes become an array
_STEPS_PER_TUPLE_KEY = 100  # hashes of tuples can be made to collide, and then each key is compared with all others
_LONGEST_KEY = 10_000
_MOST_BITS = 512  # of an integer; the states of random generators have 128
_MOST_DIMENSIONS = 32
# The classes and functions of networks, and mmengine's of histories, which some tools pickle beside their weights. Nothing of theirs
# is looked up or called.
_MODULES = re.compile(
    r"(?:timm|torchvision|lightly_train|torch\.nn|torch\._C\._nn|mmengine\.logging\.history_buffer)\.[\w.]+|functools\.partial"
)
_OTHER_SPELLINGS = {"__builtin__.": "builtins.", "numpy._core.": "numpy.core."}  # of Python 2 and of NumPy 2
_NUMBER_TYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")


class CheckpointError(ValueError):
    """A file that is not a readable checkpoint, or one that is refused for safety."""


def damaged(reason: str) -> CheckpointError:
    return CheckpointError(f"damaged or truncated checkpoint ({reason}); copy or download it again")


@dataclass(frozen=True, eq=False)
class Global:
    """What a pickle may name: inert, unless there is a function of ours that takes the arguments of the call."""

    name: str
    make: Callable[..., Any] | None = None


@dataclass(eq=False)
class _Pending:
    """What is known only after its BUILD, whose state `finish` takes; the memo then gives `value` for it."""

    finish: Callable[[Any], Any]
    value: Any = None


class Ignored:
    """Stands in for a configuration object: takes any content and keeps none."""

    def __init__(self, *_: Any) -> None: ...


class PickledModule(Ignored):
    """Stands in for a network that was pickled as an object, and for its parts."""


def unpickle(
    stream: io.BytesIO | mmap.mmap, size: int, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Read one pickle from a stream of `size` bytes.

    `names` are the globals that are known beside those of this module: plain values, or `Global`s. `persistent` gives the objects
    that are stored outside of the pickle. CheckpointError, or whatever Python raises for a scrambled stream.
    """
    machine = _Machine(size, names, persistent)
    made = None
    for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type] # it needs less than a whole IO
        machine.spend(1)
        if type(argument) is int and argument.bit_length() > _MOST_BITS:
            raise CheckpointError(f"holds an integer of {argument.bit_length():,} bits; refused")
        if opcode.name == "MARK":
            machine.marked.append(machine.stack)
            machine.stack = []
        elif (step := _STEPS.get(opcode.name)) is not None:
            made = step(machine, argument, *machine.operands(opcode.stack_before))
            if opcode.stack_after:
                machine.stack.append(made)
        else:
            raise damaged(f"it uses the pickle instruction {opcode.name}")
    machine.memo.clear()  # the machine is part of a cycle, and would keep all tensors until the next collection
    return made


class _Machine:
    """Each step gets what its instruction takes off the stack, and returns what it leaves there instead."""

    def __init__(self, size: int, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None) -> None:
        ordered = Global("collections.OrderedDict", self.ordered)
        set_of = Global("builtins.set", self.set_of)
        self.names = {**_NAMES, ordered.name: ordered, set_of.name: set_of, **names}
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.steps = 0
        self.bytes_left = _MOST_COPIES * size

    def spend(self, steps: int, *copied: Any) -> None:
        """Count steps and bytes, so that repeating a reference to something large costs as much as the large thing."""
        self.steps += steps + sum(len(value) for value in copied if type(value) in (list, tuple, dict))
        self.bytes_left -= sum(len(value) for value in copied if type(value) in (str, bytes, bytearray))
        if self.steps > MOST_STEPS or self.bytes_left < 0:
            raise CheckpointError("would need more time or memory than a checkpoint of this size can; refused")

    def operands(self, kinds: Sequence[object]) -> list[Any]:
        """What an instruction takes off the stack: objects, or as one list all above the mark."""
        taken = []
        for kind in reversed(kinds):
            if kind is pickletools.stackslice:
                taken.append(self.stack)
                self.stack = self.marked.pop()
            elif kind is not pickletools.markobject:
                taken.append(self.stack.pop())
        return taken[::-1]

    def recall(self, index: int) -> Any:
        value = self.memo[index]
        return value.value if type(value) is _Pending and value.value is not None else value

    def look_up(self, module: Any, name: Any) -> Any:
        full = f"{of_type(module, str)}.{of_type(name, str)}"
        for written, known in _OTHER_SPELLINGS.items():
            if full.startswith(written):
                full = known + full.removeprefix(written)
        if full not in self.names and _MODULES.fullmatch(full):
            return Global(full, PickledModule)
        if full not in self.names:
            fault = "which is not on the allow-list of data-only types; refused, nothing in it was run"
            raise CheckpointError(f"embeds the object {one_line(full, 100)}, {fault}")
        return self.names[full]

    def call(self, called: Any, arguments: Any, options: Any = None) -> Any:
        if type(called) is not Global or called.make is None or options:
            raise CheckpointError(f"calls {_shown(called)}, which nothing that holds only data does; refused")
        self.spend(0, *of_type(arguments, tuple))
        return called.make(*arguments)

    def build(self, target: Any, state: Any) -> Any:
        if type(target) is _Pending:
            self.spend(0, *of_type(state, tuple))
            target.value = target.finish(state)
            return target.value
        # State dicts have the versions of torch's modules, which no one needs.
        if not isinstance(target, (Ignored, OrderedDict)):
            raise CheckpointError(f"sets the state of {_shown(target)}, which has none; refused")
        return target

    def add(self, target: Any, items: Sequence[Any]) -> Any:
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(map(self.key, items))
        elif not isinstance(target, Ignored):
            raise CheckpointError(f"appends to {_shown(target)}, which is not a list; refused")
        return target

    def set_items(self, target: Any, items: Sequence[Any]) -> Any:
        if type(target) in (dict, OrderedDict):
            target.update(zip(map(self.key, items[::2]), items[1::2], strict=True))
        elif not isinstance(target, Ignored):
            raise CheckpointError(f"sets an item of {_shown(target)}, which is no dictionary; refused")
        return target

    def key(self, value: Any) -> Any:
        """A key of a dictionary or set: hashing and comparing it takes no longer than reading it did."""
        if type(value) is tuple:
            self.spend(_STEPS_PER_TUPLE_KEY + len(value))
        for part in value if type(value) is tuple else (value,):
            if not _can_be_key(part):
                raise CheckpointError(f"has {_shown(part)} as a key; only short text, small numbers and tuples of them can be")
        return value

    def ordered(self, pairs: Any = ()) -> OrderedDict[Any, Any]:
        return OrderedDict((self.key(key), value) for key, value in of_type(pairs, tuple, list))

    def set_of(self, items: Any = ()) -> set[Any]:
        return set(map(self.key, of_type(items, tuple, list)))

    def stored(self, described: Any) -> Any:
        if self.persistent is None:
            raise CheckpointError("refers to objects outside of the pickle, and is not a file of torch's; refused")
        return self.persistent(described)


def _can_be_key(value: Any) -> bool:
    if type(value) in (str, bytes):
        return len(value) <= _LONGEST_KEY
    if type(value) is int:
        return value.bit_length() <= 64
    return type(value) in (bool, float, type(None)) or isinstance(value, np.integer)


def of_type(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise damaged(f"it has {_shown(value)} where a {kinds[0].__name__} belongs")
    return value


def _shown(value: Any) -> str:
    return value.name if type(value) is Global else f"something of type {type(value).__name__}"


def _bytes(content: Any = b"", encoding: Any = None) -> bytes:
    """Bytes, which protocol 2 writes as Latin-1 text: the only use of `_codecs.encode` in pickles."""
    if encoding not in (None, "latin1", "latin-1"):
        raise CheckpointError("holds bytes in another encoding than Latin-1; refused")
    return of_type(content, bytes) if encoding is None else of_type(content, str).encode("latin1")


def _number_type(code: Any, *_: Any) -> _Pending:
    """A `numpy.dtype`; its state says the order of the bytes."""
    if not _NUMBER_TYPE.fullmatch(of_type(code, str)):
        raise CheckpointError(f"holds NumPy values of the type {one_line(code, 20)}, which are no numbers; refused")

    def finish(state: tuple[Any, ...]) -> np.dtype[Any]:
        _, order, *rest = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in rest[:3]):
            raise CheckpointError("holds NumPy values with fields or shapes of their own, which are no numbers; refused")
        return np.dtype(code).newbyteorder(order)

    return _Pending(finish)


def _array(shape: Any, kind: Any, data: Any, order: str) -> np.ndarray[Any, Any]:
    """An array in this machine's order of bytes, which cannot be written to if that is the data's own."""
    if not isinstance(kind, np.dtype):
        raise damaged(f"it has {_shown(kind)} where a type of numbers belongs")
    if type(data) is str:  # Python 2's
        data = data.encode("latin1")
    sides = checked_sizes(shape)
    needed = math.prod(sides) * kind.itemsize
    if len(of_type(data, bytes, bytearray)) != needed:
        raise CheckpointError(f"holds an array whose shape needs {needed:,} bytes, in {len(data):,}; damaged or refused")
    numbers = np.frombuffer(data, kind).astype(kind.newbyteorder("="), copy=False)
    return numbers.reshape(sides, order="F" if order == "F" else "C")


def checked_sizes(sizes: Any) -> tuple[int, ...]:
    """A shape, or strides: not negative, and small enough to be multiplied."""
    is_short = isinstance(sizes, (tuple, list)) and len(sizes) <= _MOST_DIMENSIONS
    if not is_short or not all(type(size) is int and 0 <= size < 2**48 for size in sizes):
        raise CheckpointError("holds a tensor or array of an impossible shape; damaged or refused")
    return tuple(sizes)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Pending:
    """An array that is empty until its BUILD says what is in it."""
    if not (type(kind) is Global and kind.name == "numpy.ndarray" and shape == (0,) and code in (b"b", "b")):
        raise damaged("an array in it is not made as NumPy does")

    def finish(state: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        _, shape, kind, is_fortran, data = state
        return _array(shape, kind, data, "F" if of_type(is_fortran, bool, int) else "C")

    return _Pending(finish)


_FUNCTIONS: dict[str, Callable[..., Any] | None] = {
    "collections.Counter": lambda counts: of_type(counts, dict),  # the state of a learning rate schedule
    "builtins.bytearray": lambda *content: bytearray(_bytes(*content)),
    "builtins.bytes": _bytes,  # which protocol 2 calls for empty ones
    "builtins.complex": lambda real, imaginary: complex(of_type(real, float), of_type(imaginary, float)),
    "_codecs.encode": _bytes,
    "numpy.ndarray": None,
    "numpy.dtype": _number_type,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": lambda kind, data: _array((1,), kind, data, "C")[0],
    "numpy.core.numeric._frombuffer": lambda data, kind, shape, order: _array(shape, kind, data, order),
}
_NAMES = {name: Global(name, make) for name, make in _FUNCTIONS.items()}

_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),  # text of Python 2, which arrives as Latin-1
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
# What each instruction makes of its argument and its operands, which are as `pickletools` describes them.
_STEPS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_VALUES, lambda machine, value: value),
    **dict.fromkeys(("PROTO", "FRAME", "POP", "POP_MARK", "NONE"), lambda *_: None),
    "STOP": lambda machine, _, value: value,
    "NEWTRUE": lambda *_: True,
    "NEWFALSE": lambda *_: False,
    "EMPTY_LIST": lambda *_: [],
    "EMPTY_DICT": lambda *_: {},
    "EMPTY_SET": lambda *_: set(),
    **dict.fromkeys(("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), lambda machine, _, *items: items),
    "TUPLE": lambda machine, _, items: tuple(items),
    "FROZENSET": lambda machine, _, items: frozenset(map(machine.key, items)),
    "APPEND": lambda machine, _, target, item: machine.add(target, (item,)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _, target, items: machine.add(target, items)),
    "SETITEM": lambda machine, _, target, *item: machine.set_items(target, item),
    "SETITEMS": lambda machine, _, target, items: machine.set_items(target, items),
    "MEMOIZE": lambda machine, _, value: machine.memo.setdefault(len(machine.memo), value),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, index: machine.memo.update({index: machine.stack[-1]})),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.recall(index)),
    "GLOBAL": lambda machine, name: machine.look_up(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _, module, name: machine.look_up(module, name),
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX"), lambda machine, _, *call: machine.call(*call)),
    "BUILD": lambda machine, _, target, state: machine.build(target, state),
    "BINPERSID": lambda machine, _, described: machine.stored(described),
}
