# shim: remove; use common.cli
"""The manners of every command: options from a typed dataclass, one-line errors, logging to stderr."""

import itertools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import jsonargparse

from common.cli import USER_ERROR, run_command, set_up_process
from common.help import HelpFormatter

__all__ = ["USER_ERROR", "config_parser", "parse_config", "run_command", "set_up_process"]

ConfigT = TypeVar("ConfigT")

# The sentence under each config field becomes the option's help.
jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


_MISSING = re.compile("the following arguments are required: (.*)")
"""jsonargparse's words, which leave out the dashes of options."""


class _Parser(jsonargparse.ArgumentParser):
    """Takes `--num-heads` for `--num_heads`, `--switch` for `--switch true` and `--list A B` for `--list '["A","B"]'`.

    A mistake is one line, without the usage.
    """

    def parse_args(self, args: Any = None, namespace: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        types = {name: getattr(action, "_typehint", None) for action in self._actions for name in action.option_strings}
        return super().parse_args(_whole_values([_with_underscores(argument) for argument in args], types), namespace, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        del ex
        text = " ".join(str(message).split())
        if names := _MISSING.fullmatch(text):
            options = {name for action in self._actions for name in action.option_strings}
            wanted = (f"--{name}" if f"--{name}" in options else name for name in names[1].split(", "))
            text = f"required: {', '.join(wanted)}"
        raise ValueError(f"{text} (see `{self.prog} --help`)")


def _with_underscores(argument: str) -> str:
    """`--num-heads=8` -> `--num_heads=8`; anything but an option's name stays."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _whole_values(arguments: Sequence[str], types: Mapping[str, Any]) -> list[str]:
    """`--switch --list A B` -> `--switch true --list ["A", "B"]`; a list that is written as one already stays."""
    result = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        result.append(argument)
        values = list(itertools.takewhile(lambda text: not text.startswith("--"), arguments[position:]))
        kind = types.get(argument)
        if kind is bool and not values:
            result.append("true")
        elif (element := _element_type(kind)) is not None and values and not values[0].startswith("["):
            texts = values if element in (int, float, bool) else map(json.dumps, values)
            result.append(f"[{','.join(texts)}]")
            position += len(values)
    return result


def _element_type(kind: Any) -> Any:
    """`list[Path] | None` -> Path; None if there is no list."""
    parts = [kind, *typing.get_args(kind)]
    return next((typing.get_args(part)[0] for part in parts if typing.get_origin(part) is list), None)


def config_parser(prog: str, description: str) -> jsonargparse.ArgumentParser:
    """An argument parser whose mistakes are ValueErrors of one line.

    Args:
        prog: The command as the user types it, such as `python -m eval davis`.
        description: First lines of `--help`.
    """
    return _Parser(prog=prog, description=description, allow_abbrev=False, formatter_class=HelpFormatter)


def parse_config(config_class: type[ConfigT], prog: str, argv: Sequence[str], description: str = "") -> ConfigT:
    """Parse `--field value` options into a dataclass; nested dataclasses take `--section.field value`.

    Args:
        config_class: A dataclass; the sentence under each field is its help.
        prog: The command as the user types it.
        argv: Arguments after the command.
        description: First lines of `--help`; the class's docstring by default.

    Raises:
        ValueError: For an unknown option or a value that its type or the dataclass refuses.
    """
    parser = config_parser(prog, description or (config_class.__doc__ or "").splitlines()[0])
    parser.add_class_arguments(config_class, as_group=False)
    namespace = parser.parse_args(list(argv))
    return config_class(**parser.instantiate_classes(namespace).as_dict())
