"""How `--help` looks: options as one types them, in words rather than in Python's types."""

import re
import typing
from argparse import OPTIONAL, SUPPRESS, Action, _HelpAction
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter

_NAMES = {int: "N", float: "NUMBER", Path: "PATH"}
"""What stands for a value of a type; for others it is the option's name."""


class HelpFormatter(DefaultHelpFormatter):
    """Names the options that a command demands in its usage, and for each option its values, its meaning and its default."""

    def add_usage(self, usage: str | None, actions: Iterable[Action], *args: Any, **kwargs: Any) -> None:
        """The demanded options, and that there are others."""
        demanded = [action for action in actions if action.required or not action.option_strings]
        super().add_usage(usage, demanded, *args, **kwargs)

    def _format_usage(self, usage: str | None, *args: Any, **kwargs: Any) -> str:
        text = re.sub(r"--[\w.]+", lambda name: name[0].replace("_", "-"), super()._format_usage(usage, *args, **kwargs))
        return text if usage else f"{text.rstrip()} [OPTION ...]\n\n"

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings or isinstance(action, _HelpAction):
            return super()._format_action_invocation(action)
        # `--list+`, which appends to a list, is left to those who know jsonargparse.
        names = [name.replace("_", "-") for name in action.option_strings if not name.endswith("+")]
        return f"{', '.join(names)} {self._format_args(action, '')}".rstrip()

    def _format_args(self, action: Action, default_metavar: str) -> str:
        name = self._get_default_metavar_for_optional(action)
        kind = getattr(action, "_typehint", None)
        if kind is None or not action.option_strings or action.nargs == OPTIONAL:
            return super()._format_args(action, name if action.choices is None else default_metavar)
        return _values(kind, name)

    def _get_help_string(self, action: Action) -> str:
        if isinstance(action, _HelpAction):
            return "Show this text and exit."
        text = action.help or ""
        if not action.option_strings or action.nargs == 0:
            return text
        if action.required:
            return f"{text} (required)"
        unset = action.default in (None, "", SUPPRESS, [], ())
        return text if unset else f"{text} (default: {_written(action.default)})"


def _values(kind: Any, name: str) -> str:
    """`list[Path]`, `COMPARE` -> `PATH [PATH ...]`."""
    if kind is bool:
        return "[true|false]"
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if origin is list:
        one = _values(parts[0], name)
        return f"{one} [{one} ...]"
    if origin is tuple:
        return "[" + ",".join("..." if part is ... else _values(part, name) for part in parts) + "]"
    if type(None) in parts:
        return "|".join(_values(part, name) for part in parts if part is not type(None))
    return _NAMES.get(kind, name)


def _written(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
