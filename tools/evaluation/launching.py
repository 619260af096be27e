"""Launch options on the way from one command line to those of other commands."""

import os
from collections.abc import Collection
from dataclasses import fields
from typing import Any

import jsonargparse
import torch

from common.launch import LaunchOptions

_SWITCHES = {
    "slurm": "submit Slurm jobs instead of running here; each continues by itself after a time limit or a preemption",
    "dry_run": "print what would be run or submitted, and stop",
}
NAMES = frozenset(item.name for item in fields(LaunchOptions))


def add_launch_options(parser: jsonargparse.ArgumentParser, skip: Collection[str] = ()) -> None:
    """Give a parser the options of `LaunchOptions`; its switches stand alone, so that a positional argument may follow.

    Args:
        parser: From `common.command.config_parser`.
        skip: Fields that the parser has already.
    """
    for name, text in _SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_class_arguments(LaunchOptions, skip={*_SWITCHES, *skip})


def take_launch_options(values: dict[str, Any], **others: Any) -> LaunchOptions:
    """Remove the launch options from parsed values.

    Args:
        values: From a parser with `add_launch_options`; loses them.
        others: Fields that the parser has under its own options.

    Raises:
        ValueError: As `LaunchOptions`.
    """
    return LaunchOptions(**{name: values.pop(name) for name in NAMES & values.keys() - others.keys()}, **others)


def launch_arguments(options: LaunchOptions) -> list[str]:
    """The options as `common.launch.run_or_launch` takes them at the end of a command line."""
    arguments = []
    for item in fields(LaunchOptions):
        value = getattr(options, item.name)
        if value is None or value is False or value == []:
            continue
        arguments.append(f"--{item.name.replace('_', '-')}")
        if isinstance(value, list):
            arguments += map(str, value)
        elif value is not True:
            arguments.append(str(value))
    return arguments


def local_processes(options: LaunchOptions) -> list[str]:
    """`--gpus N` for a command that runs here; nothing for one process.

    N is what the options say, else NPROC_PER_NODE, else the number of GPUs.
    """
    processes = options.gpus or int(os.environ.get("NPROC_PER_NODE", "0")) or torch.cuda.device_count() or 1
    return ["--gpus", str(processes)] if processes > 1 else []
