"""The command line of every command: options from a dataclass, one-line errors, logging to stderr, stopping on request."""

import contextlib
import dataclasses
import difflib
import functools
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
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from common import SPEAKER, tell_interrupted
from common.files import one_line

ConfigT = TypeVar("ConfigT")

USER_ERROR = 2  # exit status for a mistake of the user's; a crash of ours exits with Python's 1 and a traceback

# What schedulers send before they kill: Slurm, Kubernetes and systemd; what is customary for `sbatch --signal`; submitit.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

SECTION = "PATCHBENCH_SECTION"  # environment variable with the section of a command's options in that of its caller

_POSITIONAL = ""  # the name of arguments without one
_LONGEST_MESSAGE = 4000  # characters of a log line
# Options that a task's messages name and that are spelled alike in `eval_all.sh`, and one of docker's.
_COMMON_OPTIONS = ("--name", "--help", "--gpus", "--slurm", "--nodes", "--shm-size")
_BOOLEANS = {"true": "True", "false": "False"}  # as tyro spells them
_SWITCH_WORDS = (*_BOOLEANS, "none", "null")


def parse(config_class: type[ConfigT], argv: Sequence[str], prog: str, description: str = "") -> ConfigT:
    """Parse `--field value` options into a dataclass; nested dataclasses take `--section.field value`.

    `--num-heads` and `--num_heads` are the same, `--switch` means `--switch true`, a list is `--list A B` or `--list '["A","B"]'`,
    and of an option given twice the later value wins. Fields annotated with `tyro.conf.Positional` take no name. `--help` prints the
    description, by default the first line of the dataclass's docstring, and the options, each with the sentence under its field, and
    exits. `prog` is the command as the user types it. ValueErrors, for an unknown option or a refused value, have one line.
    """
    description = description or (config_class.__doc__ or "").splitlines()[0]
    switches = (tyro.conf.FlagConversionOff,)  # take `true` or `false`, as in a recipe
    tyro_cli = functools.partial(tyro.cli, config_class, prog=prog, description=description, config=switches)
    if "-h" in argv or "--help" in argv:
        tyro_cli(args=["--help"])
    options = dict(_options(config_class))
    hint = f"(see `{prog} --help`)"
    arguments = _whole_values(argv, {name: kinds for name, (kinds, _) in options.items()}, hint)
    given = {argument.partition("=")[0] for argument in arguments}
    if absent := [name for name, (_, required) in options.items() if required and name not in given]:
        raise ValueError(f"required: {', '.join(absent)} {hint}")
    errors = io.StringIO()
    environment = dict(os.environ)
    os.environ["COLUMNS"] = "1000000"  # keeps tyro from breaking messages into lines
    try:
        with contextlib.redirect_stderr(errors):
            return tyro_cli(args=arguments)
    except SystemExit:
        message = _first_paragraph(errors.getvalue())
    finally:
        del os.environ["COLUMNS"]
        os.environ |= environment
    refused = re.match(r"Error parsing (?!-)[^:]+: (.*)", message)  # by the dataclass itself, in our own words
    raise ValueError(refused[1] if refused else f"{message.removeprefix('Error parsing ')} {hint}")


def as_arguments(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Nested values, such as a YAML file's, as the arguments that say the same: `{"a": {"b": 1}}` -> `["--a.b", "1"]`."""
    arguments = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            arguments += as_arguments(value, f"{prefix}{name}.")
        else:
            text = json.dumps(value, default=str) if isinstance(value, bool | list | tuple) else str(value)
            # A value may look like an option.
            arguments += [f"--{prefix}{name}={text}"] if text.startswith("-") else [f"--{prefix}{name}", text]
    return arguments


def _options(config_class: type, prefix: str = "--") -> Iterator[tuple[str, tuple[set[Any], bool]]]:
    """Name, kinds (`list[int] | None` -> {list, int, NoneType}) and whether it is required, of every option, also of sections."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        name = prefix + field.name.replace("_", "-")
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _options(hint, f"{name}.")
        elif tyro.conf.Positional in getattr(hint, "__metadata__", ()):
            yield _POSITIONAL, ({Path}.intersection(_kinds(hint)), False)  # all are of one kind; tyro demands them itself
        else:
            yield name, (set(_kinds(hint)), field.default is field.default_factory is dataclasses.MISSING)


def _kinds(hint: Any) -> Iterator[Any]:
    yield typing.get_origin(hint) or hint
    for part in typing.get_args(hint):
        yield from _kinds(part)


def _whole_values(argv: Sequence[str], options: Mapping[str, set[Any]], hint: str) -> list[str]:
    """Arguments as tyro takes them: `--a_b=1` -> `--a-b 1`, `--switch` -> `--switch True`, `--list '["A","B"]'` -> `--list A B`."""
    arguments: list[str] = []
    for name, given in _grouped(argv, options, hint):
        kinds = options.get(name, set())
        values: list[str] = []
        for value in given:
            is_list = kinds & {list, tuple} and value.startswith("[")
            values += _listed(value, f"{name} {value}") if is_list else [value]
        values = [_value_of_kind(value, kinds, name, hint) for value in values]
        if bool in kinds and not given:
            values = ["True"]
        if name and len(values) == 1 and values[0].startswith("-"):
            arguments.append(f"{name}={values[0]}")  # a value that looks like an option
        else:
            arguments += [name, *values] if name else values
    return arguments


def _grouped(argv: Sequence[str], options: Mapping[str, set[Any]], hint: str) -> list[tuple[str, list[str]]]:
    """Each option by its name with the values after it, in order; positional arguments have no name."""
    groups: list[tuple[str, list[str]]] = [(_POSITIONAL, [])]
    for argument in argv:
        name, values = groups[-1]
        kinds = options.get(name, set())
        if argument.startswith("--"):
            written, equals, value = argument.partition("=")
            if (name := written.replace("_", "-")) not in options:
                close = difflib.get_close_matches(name, options, n=1)
                raise ValueError(f"unknown option {argument}{f', did you mean {close[0]}?' if close else ''} {hint}")
            groups.append((name, [value] if equals else []))
            continue
        is_bare_switch = bool in kinds and _POSITIONAL in options and argument.lower() not in _SWITCH_WORDS
        is_complete = bool(values) and not kinds & {list, tuple}
        if is_bare_switch or is_complete:
            groups.append((_POSITIONAL, [argument]))
        else:
            values.append(argument)
    return groups


def _value_of_kind(value: str, kinds: set[Any], name: str, hint: str) -> str:
    """A value as tyro spells it, a path with its home folder; ValueError for an empty path, as of a recipe's empty field."""
    if type(None) in kinds and value in ("None", "null"):
        return "None"
    if Path in kinds:
        if value in ("", "None", "null"):
            raise ValueError(f"{name} {value or 'is empty'}: a path is needed {hint}".lstrip())
        return expanded(value, name)
    return _BOOLEANS.get(value.lower(), value) if bool in kinds else value


def expanded(path: str, option: str) -> str:
    """A path with the home folder that its `~` stands for, also where no shell has looked at it, as in a recipe."""
    whole = os.path.expanduser(path)  # noqa: PTH111 - pathlib's fails with a RuntimeError
    if whole.startswith("~"):
        raise ValueError(f"{option} {path}: no such home folder; write the path in full".lstrip())
    return whole


def _listed(text: str, what: str) -> list[str]:
    import yaml  # seldom needed

    try:
        values = yaml.load(text, yaml.BaseLoader)  # which makes nothing but strings, lists and mappings
    except (yaml.YAMLError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f'{what}: not a list; write values with spaces between them, or as in ["A","B"]')
    return values


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
        self.status = 128 + signum  # as shells have it; 0 would tell a scheduler that the work is complete


class StopRequest(contextlib.ExitStack):
    """While entered, signals are only remembered, so that long work can end at its next safe point."""

    signum = 0  # of the signal that came first; 0 if none

    def __enter__(self) -> "StopRequest":
        for number in STOP_SIGNALS:
            previous = signal.signal(number, self._remember)
            # None: a handler that was not installed from Python, which cannot be put back.
            self.callback(signal.signal, number, signal.SIG_DFL if previous is None else previous)
        return self

    def _remember(self, signum: int, *_: object) -> None:
        # Repetitions are nothing new: Slurm signals every process, and torchrun passes its own on.
        self.signum = self.signum or signum


def leave_stopping_to_parent() -> None:
    """For the start of a data loader's worker: a signal to the whole group must not end it while the parent finishes its step."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Lines(logging.Formatter):
    """Messages of one line each, without the control characters that names in files may have; tracebacks stay."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides logging's
        return one_line(super().formatMessage(record), _LONGEST_MESSAGE)


def set_up_process() -> None:
    """Log to stderr, as every command does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _Output(io.FileIO):
    """Standard output or error. When its reader has left, as `| head` does, the rest goes nowhere, and the work goes on.

    So does the rest after another failure, such as a full disk, of which standard output tells.
    """

    told = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            pass
        except OSError as error:
            if self.fileno() == 1 and not self.told:
                self.told = True
                raise OSError(error.errno, error.strerror, "standard output") from error
        return memoryview(data).nbytes


def _set_up_outputs() -> None:
    """Make standard output and error forgiving; where one was closed, nobody reads it, and no other file may take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number, which is this one
    for number, name, stream in ((1, "stdout", sys.__stdout__), (2, "stderr", sys.__stderr__)):
        if getattr(sys, name) is stream:  # not in tests, which capture them
            raw = io.BufferedWriter(_Output(number, "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True))


def run_command(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Run a command's `main(argv)` and exit: 0, or its status; a user's mistake is one line on stderr and status 2.

    ValueErrors and OSErrors (a missing file, a full disk, a folder without permission) count as the user's; anything else is ours
    and keeps its traceback. Ctrl-C exits with 130, and work that a signal stopped after saving its state with `Interrupted.status`.
    """
    _set_up_outputs()
    set_up_process()
    os.environ.setdefault(SPEAKER, str(os.getpid()))
    try:
        status = main(sys.argv[1:]) or 0
    except (ValueError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"cannot use {error.filename}: {error.strerror or error}"
        sys.stderr.write(f"error: {one_line(as_typed(text, os.environ.get(SECTION, '')))}\n")
        status = USER_ERROR
    except Interrupted as interrupted:
        status = interrupted.status
    except KeyboardInterrupt:
        tell_interrupted()
        status = 130
    sys.exit(status)


def as_typed(text: str, section: str) -> str:
    """A message about the options of `python -m eval TASK`, with the names that they have in `eval_all.sh`: `--TASK.OPTION`."""
    if not section:
        return text

    def typed(option: re.Match[str]) -> str:
        return option[0] if option[0] in _COMMON_OPTIONS else f"--{section}.{option[0].removeprefix('--')}"

    return re.sub(r"(?<![\w-])--[a-z][\w-]*", typed, text.replace("another --output", "another --name"))
