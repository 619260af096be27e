"""The command line of every command: options from a dataclass, one-line errors, logging to stderr, stopping on request."""

import contextlib
import dataclasses
import difflib
import io
import itertools
import json
import logging
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, NoReturn, TypeVar

import tyro
import yaml
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

ConfigT = TypeVar("ConfigT")

USER_ERROR = 2
"""Exit status for a mistake of the user's; a crash of ours exits with Python's 1 and a traceback."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send before they kill: SIGTERM (Slurm, Kubernetes, systemd), SIGUSR1 (customary for `sbatch --signal`) and SIGUSR2
(submitit's)."""

_HELP = ("-h", "--help")
_BOOLEANS = {"true": True, "false": False}
_BOOLEAN_WORDS = (*_BOOLEANS, "none", "null")
_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def _read_boolean(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[bool] | None:
    """`--switch true` and `--switch false`, where tyro would have `--switch` and `--no-switch`."""
    if kind.type is not bool:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{true,false}",
        instance_from_str=lambda texts: _BOOLEANS[texts[0]],
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value).lower()],
        choices=tuple(_BOOLEANS),
    )


def parse(config_class: type[ConfigT], argv: Sequence[str], prog: str, description: str = "") -> ConfigT:
    """Parse `--field value` options into a dataclass; nested dataclasses take `--section.field value`.

    `--num-heads` and `--num_heads` are the same, `--switch` means `--switch true`, a list is `--list A B` or `--list '["A","B"]'`,
    and of an option given twice the later value wins. Fields annotated with `tyro.conf.Positional` take no name. `--help` prints the
    options, each with the sentence under its field, and exits.

    Args:
        config_class: The dataclass.
        argv: Arguments after the command.
        prog: The command as the user types it, such as `python -m eval davis`.
        description: First lines of `--help`; the first line of the class's docstring by default.

    Raises:
        ValueError: For an unknown option or a value that its type or the dataclass refuses. Always one line.
    """
    description = description or (config_class.__doc__ or "").splitlines()[0]
    if any(argument in _HELP for argument in argv):
        _call_tyro(config_class, _HELP[1:], prog, description)
    options = dict(_options(config_class))
    hint = f"(see `{prog} --help`)"
    arguments = _whole_values(argv, options, hint)
    given = {argument.partition("=")[0] for argument in arguments}
    if required := [name for name, option in options.items() if option.required and name not in given]:
        raise ValueError(f"required: {', '.join(required)} {hint}")
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), _wide_terminal():
        try:
            return _call_tyro(config_class, arguments, prog, description)
        except SystemExit:
            pass
    message = _first_paragraph(errors.getvalue())
    refused = re.match(r"Error parsing (?!-)[^:]+: (.*)", message)  # by the dataclass itself, in our own words
    raise ValueError(refused[1] if refused else f"{message.removeprefix('Error parsing ')} {hint}")


def as_arguments(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Nested values, such as a YAML file's, as the arguments that say the same: `{"a": {"b": 1}}` -> `["--a.b", "1"]`."""
    arguments = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            arguments += as_arguments(value, f"{prefix}{name}.")
        else:
            text = json.dumps(value) if isinstance(value, bool | list | tuple) else str(value)
            arguments += [f"--{prefix}{name}", text]
    return arguments


@dataclasses.dataclass(frozen=True)
class _Option:
    kinds: frozenset[Any]
    """`list[int] | None` -> {list, int, NoneType}."""
    required: bool


def _options(config_class: type, prefix: str = "--") -> Iterator[tuple[str, _Option]]:
    """Name and kind of every option of a dataclass and of its sections; names of positional arguments have no dashes."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        name = prefix + field.name.replace("_", "-")
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _options(hint, f"{name}.")
        elif tyro.conf.Positional in getattr(hint, "__metadata__", ()):
            yield field.name, _Option(frozenset(), required=False)  # tyro demands it itself
        else:
            demanded = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            yield name, _Option(frozenset(_kinds(hint)), demanded)


def _kinds(hint: Any) -> Iterator[Any]:
    yield typing.get_origin(hint) or hint
    for part in typing.get_args(hint):
        yield from _kinds(part)


def _whole_values(argv: Sequence[str], options: Mapping[str, _Option], hint: str) -> list[str]:
    """Arguments as tyro takes them: `--a_b=1` -> `--a-b 1`, `--switch` -> `--switch true`, `--list '["A","B"]'` -> `--list A B`."""
    arguments: list[str] = []
    kinds: frozenset[Any] = frozenset()
    named_only = all(name.startswith("--") for name in options)
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            name = name.replace("_", "-")
            if name not in options:
                close = difflib.get_close_matches(name, options, n=1)
                raise ValueError(f"unknown option {argument}{f', did you mean {close[0]}?' if close else ''} {hint}")
            arguments.append(name)
            kinds = options[name].kinds
            if value.startswith("-"):
                arguments[-1] = f"{name}={value}"  # a value that looks like an option
            elif equals:
                rest.insert(0, value)
            elif bool in kinds and not (rest and (rest[0].lower() in _BOOLEAN_WORDS or (named_only and rest[0][:2] != "--"))):
                arguments.append("true")
        elif kinds & {list, tuple} and argument.startswith("["):
            arguments += _listed(argument, f"{arguments[-1]} {argument}")
        elif type(None) in kinds and argument == "null":
            arguments.append("None")
        else:
            arguments.append(argument.lower() if bool in kinds and argument.lower() in _BOOLEANS else argument)
    return arguments


def _listed(text: str, what: str) -> list[str]:
    try:
        values = yaml.load(text, yaml.BaseLoader)  # which makes nothing but strings, lists and mappings
    except yaml.YAMLError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f'{what}: not a list; write values with spaces between them, or as in ["A","B"]')
    return values


def _call_tyro(config_class: type[ConfigT], arguments: Sequence[str], prog: str, description: str) -> ConfigT:
    return tyro.cli(
        config_class,
        prog=prog,
        description=description,
        args=arguments,
        config=(tyro.conf.FlagConversionOff,),
        registry=_REGISTRY,
    )


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    """Keep tyro from breaking messages into lines."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _first_paragraph(box: str) -> str:
    """What a message of tyro's says first, without its title, its frame and the help below it."""
    lines = [line.strip(" │") for line in re.sub("\x1b\\[[0-9;]*m", "", box).splitlines()[1:]]
    # Where the terminal cannot show the frame, a line of dashes is below the title.
    said = itertools.dropwhile(lambda line: not line.strip("-"), lines)
    return " ".join(itertools.takewhile(lambda line: line.strip("─╰╯-"), said)).rstrip(".")


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Work was stopped on request after saving its state; the same command continues it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def status(self) -> int:
        """The exit status as shells have it: 128 + N, 143 for SIGTERM.

        Not 0, which would tell a scheduler that the work is complete and need not be started again.
        """
        return 128 + self.signum


class StopRequest:
    """While entered, signals are only remembered, so that long work can end at its next safe point.

    Afterwards whoever handled them before does again.
    """

    def __init__(self, signals: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
        self._signals = signals
        self._previous: dict[signal.Signals, Any] = {}
        self.signum = 0
        """The signal that came first; 0 if none."""

    def __enter__(self) -> "StopRequest":
        """Take over the signals; only the main thread may."""
        self._previous = {number: signal.signal(number, self._remember) for number in self._signals}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        # Repetitions are nothing new: Slurm signals every process, and torchrun passes its own on.
        del frame
        self.signum = self.signum or signum


def leave_stopping_to_parent(worker: int) -> None:
    """For the start of a data loader's worker: a signal to the whole group must not end it while the parent finishes its step."""
    del worker
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def set_up_process() -> None:
    """Log to stderr, as every command does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)


def run_command(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Run a command's `main(argv)` and exit: 0, or its status; a user's mistake is one line on stderr and status 2.

    ValueErrors and OSErrors (a missing file, a full disk, a folder without permission) count as the user's; anything else is ours
    and keeps its traceback. Ctrl-C exits with 130, and work that a signal stopped after saving its state with 128 + the signal's
    number; the work itself has told how it went.
    """
    set_up_process()
    try:
        status = main(sys.argv[1:]) or 0
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {_one_line(error)}\n")
        status = USER_ERROR
    except Interrupted as interrupted:
        status = interrupted.status
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command line continues\n")
        status = 130
    sys.exit(status)


def _one_line(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}"
    return " ".join(str(error).split())
