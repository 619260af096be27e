"""Who may import whom: the directions of the tree, OpenMMLab's place, and that the core does without the comfort built on it."""

import ast
import functools
from collections.abc import Callable

from eval.tasks import TASKS
from tests.conftest import REPOSITORY

MAY_IMPORT = {
    "common": ("common",),
    "backbones": ("common", "backbones"),
    "pretrain": ("common", "backbones", "pretrain"),
    "eval": ("common", "backbones", "eval"),
    # Of the evaluation, the tables know the form of its results and the registry of its tasks.
    "tables": ("common", "backbones.spec", "eval.result", "eval.registry", "eval.tasks", "tables"),
    "tools": ("common", "backbones", "pretrain", "eval", "tables", "tools"),
    "patchbench": ("common", "backbones", "eval", "tools"),
}
PACKAGES_OF_TASKS = tuple(f"eval.{name}" for name in TASKS)
ON_OPENMMLAB = ("eval.openmmlab", "eval.detection", "eval.segmentation")
OPENMMLAB = ("mmcv", "mmdet", "mmengine", "mmseg")
COMFORT = ("tables.report", "tables.significance", "pretrain.monitoring")
ABOVE_COMFORT = ("tools", "patchbench", "tables.__main__", "tables.make", "pretrain.run", *COMFORT)
"""What puts core and comfort together, and the comfort itself."""


def within(name: str, places: tuple[str, ...]) -> bool:
    """Whether a module is one of these or in one of these packages."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


@functools.cache
def all_imports() -> list[tuple[str, str]]:
    """(module of ours, full name of something that it imports) for every import statement of the code."""
    found = []
    folders = (path for package in MAY_IMPORT for path in sorted((REPOSITORY / package).rglob("*.py")))
    for path in (*folders, REPOSITORY / "patchbench.py"):
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(name, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                found += [(name, f"{node.module}.{alias.name}") for alias in node.names]
    assert len(found) > 1000
    return found


def refused(concerned: tuple[str, ...], may: Callable[[str, str], bool]) -> list[str]:
    """What imports one of these modules and may not; there must be some who may."""
    found = [(name, other) for name, other in all_imports() if within(other, concerned)]
    assert len(found) > 10
    return [f"{name} imports {other}" for name, other in found if not may(name, other)]


def test_packages_import_in_one_direction() -> None:
    packages = (*MAY_IMPORT, "benchmarks", "tests")
    assert refused(packages, lambda name, other: within(other, MAY_IMPORT[name.partition(".")[0]])) == []


def test_only_the_registry_knows_several_tasks() -> None:
    def same_task(name: str, other: str) -> bool:
        return (
            not within(name, ("eval",))
            or name == "eval.tasks"
            or any(within(name, (task,)) and within(other, (task,)) for task in PACKAGES_OF_TASKS)
        )

    assert refused(PACKAGES_OF_TASKS, same_task) == []


def test_only_the_tasks_on_openmmlab_need_it() -> None:
    assert refused(("eval.openmmlab", *OPENMMLAB), lambda name, other: within(name, ON_OPENMMLAB)) == []


def test_the_core_does_without_comfort() -> None:
    assert refused(COMFORT, lambda name, other: within(name, ABOVE_COMFORT)) == []
