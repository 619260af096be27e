"""Single values of a resolved mmengine config, by dotted path: read, overridden from the command line, written to a result."""

from collections.abc import Sequence
from typing import Any

import yaml
from mmengine.config import Config


def lookup(config: Any, path: str) -> Any:
    """The value at a dotted path, such as `model.decode_head.feature_strides.0`.

    Raises:
        LookupError: If the config has no such path.
    """
    node = config
    for key in path.split("."):
        if isinstance(node, (list, tuple)) and key.isdecimal():
            node = node[int(key)]
        elif isinstance(node, (dict, Config)) and key in node:
            node = node[key]
        else:
            raise LookupError(path)
    return node


_EFFECTIVE = (
    "model.",
    "optim_wrapper.",
    "param_scheduler.",
    "train_dataloader.dataset.",
    "test_dataloader.dataset.",
    "test_evaluator.",
)
"""Where an override changes the run. Elsewhere the options have been read already, or `eval.openmmlab.launch` sets the value."""
_OPTIONS_OF_THEIR_OWN = ("optim_wrapper.accumulative_counts", "optim_wrapper.dtype", "optim_wrapper.type")


def check_override(override: str) -> None:
    """Raise ValueError for a value of the config that, replaced at the end, would change nothing."""
    path = override.partition("=")[0]
    if not path.startswith(_EFFECTIVE) or path in _OPTIONS_OF_THEIR_OWN:
        raise ValueError(
            f"--override {override!r} would change nothing: only values under {', '.join(_EFFECTIVE)} do; batch, schedule, crops, "
            "precision and workers have options of their own (see --help)"
        )


def apply_override(config: Config, override: str) -> None:
    """Set one value by its dotted path; a path that names nothing is an error, since mmengine would add it in silence.

    Args:
        config: Changed in place.
        override: `path=value`, the value in YAML.

    Raises:
        ValueError: If it is not of this form or the config has no such path.
    """
    path, separator, text = override.partition("=")
    parent, _, last = path.rpartition(".")
    try:
        present = lookup(config, path)
        node = lookup(config, parent) if parent else config
        value = _parse(text)
    except (LookupError, yaml.YAMLError):
        separator = ""
    if not separator or isinstance(node, tuple):
        raise ValueError(
            f"--override {override!r}: wanted key=value with a key of the config, such as model.test_cfg.mode=whole"
        )
    if isinstance(present, (int, float)) and not isinstance(value, (int, float)):
        raise ValueError(f"--override {override!r}: {path} is a number ({present}), and {text!r} is not")
    node[int(last) if isinstance(node, list) else last] = _typed_like(present, value)


def _parse(text: str) -> Any:
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 takes 1e-3, without a dot, for a string
        except ValueError:
            return value
    return value


def _typed_like(present: Any, value: Any) -> Any:
    """A value from YAML, which knows no tuples and takes 0 for an integer, in the types of the value it replaces.

    Transforms of mmcv insist on them: a scale is a tuple, a probability a float.
    """
    if isinstance(value, list) and isinstance(present, (list, tuple)) and present:
        items = [_typed_like(present[0], item) for item in value]
        return tuple(items) if isinstance(present, tuple) else items
    if isinstance(present, float) and type(value) is int:
        return float(value)
    return value


def plain(value: Any) -> Any:
    """Lists and dicts as JSON has them, so that what is read from a file equals what was written."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def override_deviations(config: Config, published: Config, overrides: Sequence[str]) -> dict[str, list[Any]]:
    """The deviations that the user's overrides are: path -> [published, used].

    Args:
        config: With the overrides.
        published: The config file as written; has no value for what only a resolved config knows, such as a data folder.
        overrides: As in `apply_override`.
    """

    def published_value(path: str) -> Any:
        try:
            return lookup(published, path)
        except LookupError:
            return None

    paths = [override.partition("=")[0] for override in overrides]
    return {path: [plain(published_value(path)), plain(lookup(config, path))] for path in paths}
