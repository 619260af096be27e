"""Pickles without their powers: a stack machine of our own that makes numbers, text, containers and NumPy arrays of numbers.

A pickle is a program. Python's unpickler calls whatever it names, and NumPy's own functions, fed with invented arguments, write to
any address. Here every global is a name in a table of ours, every argument is checked, and whatever a small file could blow up (the
number of steps, the bytes made, colliding keys) is counted. The opcodes are read by `pickletools`, which checks every length against
what is left of the stream.
"""

import argparse
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
_MOST_BITS = 512  # of an integer; the states of random generators have 128
_MOST_DIMENSIONS = 32
_ATOMS = (str, bytes, int, float, bool, type(None))
_NUMBER_TYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")


class CheckpointError(ValueError):
    """A file that is not a readable checkpoint, or one that is refused for safety."""


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


def unpickle(
    stream: io.BytesIO | mmap.mmap, size: int, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Read one pickle from a stream of `size` bytes.

    `names` are the globals that are known beside those of this module: plain values, or `Global`s. `persistent` gives the objects
    that are stored outside of the pickle. CheckpointError, or whatever Python raises for a scrambled stream.
    """
    machine = _Machine(size, names, persistent)
    for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type] # it needs less than a whole IO
        machine.spend(1)
        if opcode.name in _VALUES:
            machine.push(_checked(argument))
        elif (step := _STEPS.get(opcode.name)) is not None:
            step(machine, argument)
        else:
            raise CheckpointError(f"damaged or truncated checkpoint (it uses the pickle instruction {opcode.name})")
    if machine.num_pending:
        raise CheckpointError("damaged or truncated checkpoint (an array in it has no content)")
    return machine.stack.pop()


class _Machine:
    def __init__(self, size: int, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None) -> None:
        own = {"collections.OrderedDict": self.ordered, "builtins.set": self.set_of}
        self.names = {**_NAMES, **{name: Global(name, make) for name, make in own.items()}, **names}
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.steps, self.bytes_left, self.num_pending = 0, _MOST_COPIES * size, 0

    def spend(self, steps: int, made: int = 0) -> None:
        """Count steps and bytes, so that repeating a reference to something large costs as much as the large thing."""
        self.steps += steps
        self.bytes_left -= made
        if self.steps > MOST_STEPS or self.bytes_left < 0:
            raise CheckpointError("would need more time or memory than a checkpoint of this size can; refused")

    def push(self, value: Any) -> None:
        self.stack.append(value)  # whichever it is then: marks replace the stack

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def recall(self, index: int) -> None:
        value = self.memo[index]
        self.stack.append(value.value if type(value) is _Pending and value.value is not None else value)

    def look_up(self, name: str) -> None:
        # The names that Python 2 and NumPy 2 have for them.
        name = re.sub(r"^numpy\._core\.", "numpy.core.", re.sub(r"^__builtin__\.", "builtins.", name))
        if name not in self.names:
            embedded = f"embeds the object {one_line(name, 100)}"
            raise CheckpointError(
                f"{embedded}, which is not on the allow-list of data-only types; refused, nothing in it was run"
            )
        self.stack.append(self.names[name])

    def look_up_from_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.look_up(f"{of_type(module, str)}.{of_type(name, str)}")

    def call(self, arguments: Any, options: Any = None) -> None:
        called = self.stack.pop()
        if type(called) is not Global or called.make is None or options:
            raise CheckpointError(f"calls {_shown(called)}, which nothing that holds only data does; refused")
        arguments = of_type(arguments, tuple)
        for argument in arguments:
            self.spend(len(argument) if type(argument) in (list, tuple, dict) else 0, _num_bytes(argument))
        made = called.make(*arguments)
        self.num_pending += type(made) is _Pending
        self.stack.append(made)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _Pending:
            for part in of_type(state, tuple):
                self.spend(0, _num_bytes(part))
            target.value = self.stack[-1] = target.finish(state)
            self.num_pending -= 1
        elif type(target) is argparse.Namespace:
            self.spend(len(of_type(state, dict)))
            vars(target).update({of_type(name, str): value for name, value in state.items()})
        elif type(target) not in (Ignored, OrderedDict):  # state dicts have the versions of torch's modules, which no one needs
            raise CheckpointError(f"sets the state of {_shown(target)}, which has none; refused")

    def add(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(self.key(item) for item in items)
        elif type(target) is not Ignored:
            raise CheckpointError(f"appends to {_shown(target)}, which is not a list; refused")

    def set_items(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if type(target) in (dict, OrderedDict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[self.key(key)] = value
        elif type(target) is not Ignored:
            raise CheckpointError(f"sets an item of {_shown(target)}, which is no dictionary; refused")

    def key(self, value: Any) -> Any:
        """A key of a dictionary or set: hashing and comparing it takes no longer than reading it did."""
        if type(value) is str:
            return value
        parts = value if type(value) is tuple else (value,)
        if type(value) is tuple:
            self.spend(_STEPS_PER_TUPLE_KEY + len(value))
        for part in parts:
            is_atom = type(part) in _ATOMS or isinstance(part, np.integer)
            if not is_atom or (type(part) is int and part.bit_length() > 64):
                raise CheckpointError(
                    f"has {_shown(part)} as a key; only text, small numbers and tuples of them can be; refused"
                )
        return value

    def ordered(self, pairs: Any = ()) -> OrderedDict[Any, Any]:
        return OrderedDict((self.key(key), value) for key, value in pairs)

    def set_of(self, items: Any = ()) -> set[Any]:
        return {self.key(item) for item in items}

    def instance(self, name: str) -> None:
        arguments = self.since_mark()
        self.look_up(name)
        self.call(tuple(arguments))

    def stored(self) -> None:
        if self.persistent is None:
            raise CheckpointError("refers to objects outside of the pickle, and is not a file of torch's; refused")
        self.stack.append(self.persistent(self.stack.pop()))


def _popped(stack: list[Any], count: int) -> tuple[Any, ...]:
    if len(stack) < count:
        raise IndexError("too little on the stack")
    items = tuple(stack[-count:])
    del stack[-count:]
    return items


def of_type(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise CheckpointError(f"damaged or truncated checkpoint (it has {_shown(value)} where a {kinds[0].__name__} belongs)")
    return value


def _shown(value: Any) -> str:
    return value.name if type(value) is Global else f"something of type {type(value).__name__}"


def _num_bytes(value: Any) -> int:
    return len(value) if type(value) in (str, bytes, bytearray) else 0


def _checked(value: Any) -> Any:
    if type(value) is int and value.bit_length() > _MOST_BITS:
        raise CheckpointError(f"holds an integer of {value.bit_length():,} bits; refused")
    return value


def _text_bytes(text: Any, encoding: Any) -> bytes:
    """The only use of `_codecs.encode` in pickles: bytes, written as Latin-1 text by protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise CheckpointError("holds bytes in another encoding than Latin-1; refused")
    return of_type(text, str).encode("latin1")


def _byte_array(content: Any = b"", encoding: Any = None) -> bytearray:
    return bytearray(of_type(content, bytes) if encoding is None else _text_bytes(content, encoding))


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
        raise CheckpointError(f"damaged or truncated checkpoint (it has {_shown(kind)} where a type of numbers belongs)")
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
    if len(of_type(sizes, tuple)) > _MOST_DIMENSIONS or not all(type(size) is int and 0 <= size < 2**48 for size in sizes):
        raise CheckpointError("holds a tensor or array of an impossible shape; damaged or refused")
    return tuple(sizes)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Pending:
    """An array that is empty until its BUILD says what is in it."""
    if not (type(kind) is Global and kind.name == "numpy.ndarray" and shape == (0,) and code in (b"b", "b")):
        raise CheckpointError("damaged or truncated checkpoint (an array in it is not made as NumPy does)")

    def finish(state: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        _, shape, kind, is_fortran, data = state
        return _array(shape, kind, data, "F" if of_type(is_fortran, bool, int) else "C")

    return _Pending(finish)


_FUNCTIONS: dict[str, Callable[..., Any] | None] = {
    "collections.Counter": lambda counts: of_type(counts, dict),  # the state of a learning rate schedule
    "builtins.bytearray": _byte_array,
    "builtins.bytes": lambda: b"",  # protocol 2 calls it for empty ones
    "builtins.complex": lambda real, imaginary: complex(of_type(real, float), of_type(imaginary, float)),
    "_codecs.encode": _text_bytes,
    "numpy.ndarray": None,
    "numpy.dtype": _number_type,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": lambda kind, data: _array((1,), kind, data, "C")[0],
    "numpy.core.numeric._frombuffer": lambda data, kind, shape, order: _array(shape, kind, data, order),
}
_NAMES = {name: Global(name, make) for name, make in _FUNCTIONS.items()}

# Everything that only pushes its own argument; the text of Python 2 arrives as Latin-1.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.stack.pop() if machine.stack else machine.since_mark(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(_popped(machine.stack, 1)),
    "TUPLE2": lambda machine, _: machine.push(_popped(machine.stack, 2)),
    "TUPLE3": lambda machine, _: machine.push(_popped(machine.stack, 3)),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(machine.key, machine.since_mark()))),
    "APPEND": lambda machine, _: machine.add(_popped(machine.stack, 1)),
    "APPENDS": lambda machine, _: machine.add(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(_popped(machine.stack, 2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    "GLOBAL": lambda machine, name: machine.look_up(name.replace(" ", ".", 1)),
    "INST": lambda machine, name: machine.instance(name.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.look_up_from_stack(),
    "REDUCE": lambda machine, _: machine.call(machine.stack.pop()),
    "NEWOBJ": lambda machine, _: machine.call(machine.stack.pop()),
    "NEWOBJ_EX": lambda machine, _: machine.call(options=machine.stack.pop(), arguments=machine.stack.pop()),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.stored(),
    **{
        name: lambda machine, index: machine.memo.__setitem__(index, machine.stack[-1])
        for name in ("PUT", "BINPUT", "LONG_BINPUT")
    },
    **{name: lambda machine, index: machine.recall(index) for name in ("GET", "BINGET", "LONG_BINGET")},
}
