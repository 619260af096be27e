"""The command line that makes a result again."""

import json
import shlex
from typing import Any

from eval.result import Result

_DERIVED = frozenset({"batch"})
"""What the fine-tuning tasks add to their options in a result: how the processes made up the batch."""


def reproduction_arguments(result: Result) -> list[list[str]]:
    """The command's words, those of one option together.

    Every option is spelt out, so that the command means the same where a default has changed since. An option without a value
    (None) is left out: None is the default wherever it is allowed.
    """
    words = [["python", "-m", "eval", result.task]]
    words += [_option(name, value) for name, value in result.config.items() if value is not None and name not in _DERIVED]
    if result.environment.world_size > 1:
        words.append(["--gpus", str(result.environment.world_size)])
    return words


def reproduction_command(result: Result) -> str:
    """The command for a POSIX shell, an option per line."""
    return " \\\n    ".join(shlex.join(words) for words in reproduction_arguments(result))


def _option(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    text = value if isinstance(value, str) else json.dumps(value)
    # A value that looks like an option must not be taken for one.
    return [f"{option}={text}"] if text.startswith("-") else [option, text]
