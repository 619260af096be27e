"""Recipes: YAML files of a few lines, most of them over a base.

`extends: NAME` or `extends: [NAME, NAME]` takes the sections of other recipe files first, in this order; the file's own fields win.
A name is a file beside the extending one, in its folder `base`, or a recipe that comes with PatchBench.
"""

from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).resolve().parent / "recipes"
BASES = "base"


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name or by path."""
    for candidate in (Path(name), RECIPES / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    raise ValueError(f"no recipe {name!r}; give a YAML file or one of {', '.join(recipe_names())}")


def read_recipe(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe's sections, with those that it extends; `extended_by` are the files that led to this one."""
    if path.resolve() in extended_by:
        raise ValueError(f"{path}: extends itself, by way of {extended_by[-1]}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a recipe; it must map sections to fields")
    names = content.pop("extends", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: extends: must be the name of a recipe or a list of names, not {names!r}")
    merged: dict[str, Any] = {}
    folders = (path.parent, path.parent / BASES, RECIPES, RECIPES / BASES)
    for name in names:
        files = [folder / f"{name.removesuffix('.yaml')}.yaml" for folder in folders]
        base = next((file for file in files if file.is_file() and file.resolve() != path.resolve()), None)
        if base is None:
            raise ValueError(f"{path}: extends {name!r}, and there is no {name}.yaml in {', '.join(map(str, folders))}")
        merged = _merge(merged, read_recipe(base, (*extended_by, path.resolve())))
    return _merge(merged, content)


def _merge(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """Fields of both; of those in both the upper one's."""
    merged = dict(lower)
    for name, value in upper.items():
        both_sections = isinstance(value, dict) and isinstance(lower.get(name), dict)
        merged[name] = _merge(lower[name], value) if both_sections else value
    return merged
