"""Runs with everything that tasks leave behind, varied by number; much smaller than real ones where size does not matter."""

import dataclasses
import json
import math
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from eval.result import Result, write_result
from tests.tables.conftest import make_result

SEQUENCES = tuple(f"sequence-{number:02}" for number in range(30))
ITEMS = {
    "davis": ([f"{name}_1" for name in SEQUENCES], ("J&F-Mean", "J-Mean", "F-Mean")),
    "detection": ([f"class {item}" for item in range(80)], ("bbox_mAP", "segm_mAP")),
    "segmentation": ([f"class {item}" for item in range(150)], ("IoU", "Acc")),
    "classification": ([f"class {item}" for item in range(10)], ("10-NN top-1", "20-NN top-1", "linear top-1")),
}
"""Task -> as many items as the benchmark has, and the metrics that a result states of each."""
HOSTILE = """<script>hacked=1</script>"' onclick=hacked=1 </script><img src=x onerror=hacked=1>"""


def breakdown(task: str, number: int) -> dict[str, dict[str, float]]:
    """Another percentage for every run and item; some classes have none."""
    names, metrics = ITEMS[task]
    values = [(37.0 * number + 13.7 * item) % 100 if task == "davis" or item % 11 else math.nan for item in range(len(names))]
    return {name: dict.fromkeys(metrics, value) for name, value in zip(names, values, strict=True)}


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (64, 36)) -> None:
    """Pictures `000.png`, ... that differ."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (30 * number % 256, 90, 160)).save(folder / f"{number:03}.png")


def write_log(path: Path, lines: int) -> None:
    """A training log of the fine-tuning tasks."""
    path.parent.mkdir(parents=True)
    constant = {"acc": 50.0, "lr": 1e-4}
    entries = [{"iteration": n, "loss": 5 / n, "loss_cls": 3 / n, "loss_bbox": 2 / n, **constant} for n in range(1, lines + 1)]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))


def write_artefacts(folder: Path, task: str) -> dict[str, str]:
    """Files as the task writes them; the artefacts of its result."""
    if task == "davis":
        for sequence in SEQUENCES[:3]:
            write_pictures(folder / "overlays" / sequence, 5)
        return {"masks": "masks", "overlays": "overlays"}
    if task == "classification":
        return {}
    write_pictures(folder / "predictions", 2)
    write_log(folder / "training/training.jsonl", 400)
    return {"training_log": "training/training.jsonl"} | {f"prediction on {n}.jpg": f"predictions/00{n}.png" for n in range(2)}


def write_run(
    runs: Path,
    name: str,
    task: str,
    number: int = 0,
    *,
    config: Mapping[str, Any] | None = None,
    change: Mapping[str, Any] | None = None,
    **options: Any,
) -> Result:
    """Write a result with all its artefacts below `runs/runNUMBER/TASK`; a backbone's name may be anything.

    `change` replaces fields of the result, the further options are those of `make_result`.
    """
    folder = runs / f"run{number}" / task
    artefacts = write_artefacts(folder, task)
    made = {"artefacts": artefacts, "breakdown": breakdown(task, number), "sha256": f"{number:064x}"}
    result = make_result(name, task, **(made | options))
    result = dataclasses.replace(result, config=dict(config or {"seed": 0, "device": "auto"}), **dict(change or {}))
    write_result(folder, result)
    return result


class Page(HTMLParser):
    """A page's elements; fails where tags do not nest."""

    VOID = frozenset({"meta", "input", "img", "br", "link", "image"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"{tag} has an attribute twice: {attrs}"
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.VOID, f"<{tag}/> is no empty element"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str, class_name: str = "") -> list[dict[str, str | None]]:
        """Attributes of every element of a tag, and of a class where one is given."""
        found = [attributes for name, attributes in self.elements if name == tag]
        return [one for one in found if not class_name or class_name in (one.get("class") or "").split()]

    def values(self, attribute: str) -> list[str]:
        """Every value of an attribute."""
        return [value for _, attributes in self.elements if (value := attributes.get(attribute)) is not None]

    @property
    def text(self) -> str:
        """All text that is shown."""
        return " ".join(" ".join(data.split()) for parent, data in self.texts if parent not in ("script", "style"))
