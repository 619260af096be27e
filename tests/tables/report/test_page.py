import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from common.cli import parse
from eval.result import read_result, write_result
from eval.tasks import TASKS
from tables.report.data import reproduction_command
from tests.tables.conftest import NO_BENCHMARK_NUMBERS, make_result
from tests.tables.report.conftest import HOSTILE, render, write_run


class Page(HTMLParser):
    """A page's elements with their attributes, and its text with its style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


def test_the_page_loads_nothing_and_every_value_leads_to_its_provenance(runs: Path) -> None:
    for number, name in enumerate("ab"):
        write_run(runs, name, "davis", number)
        write_run(runs, name, "segmentation", number, coverage="sample")
    write_run(runs, "a", "detection", deviations={"num_heads": [8, 3]})
    write_run(runs, "b", "classification", 1, coverage="subset", intervals={"20-NN top-1": [1.0, 30.0]})
    text = render(runs)
    assert '<p class="note">a – COCO: the released configuration fine-tunes with 8 attention heads' in text
    page = Page(text)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {target for target in page.values("href") if not target.startswith("data:image/")} <= {f"#{name}" for name in ids}
    assert all(source.startswith("data:image/") for source in page.values("src"))
    assert not re.search(r"url\(|@import|https?://", text.replace("default-src 'none'", ""))
    (policy,) = [one["content"] for _, one in page.elements if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    links = [link for tag, link in page.elements if tag == "a" and "value" in link.get("class", "").split()]
    assert len(links) > 100
    for link in links:
        assert link["href"].startswith("#p-" if "published" in link["class"] else "#r")


def test_names_cannot_break_out(runs: Path) -> None:
    plain_tags = [tag for tag, _ in Page(_hostile(runs, "n" * len(HOSTILE))).elements]
    shutil.rmtree(runs)
    page = Page(_hostile(runs, HOSTILE))
    assert [tag for tag, _ in page.elements] == plain_tags
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert HOSTILE in page.text


def test_control_characters_and_halves_of_characters_do_not_reach_the_page(runs: Path) -> None:
    text = _hostile(runs, "a\x1b[31m\u202eb\ud800\x00c")
    assert "a [31m b  c" in text
    assert not [character for character in text if not character.isprintable() and character not in "\n\t\xa0"]


def _hostile(runs: Path, name: str) -> str:
    """A report where everything that a user can name has a name."""
    options = {"settings": {name: name}, "deviations": {name: [name, {"x": name}]}, "source": {"file_name": name}}
    options["change"] = {"config": {"name": name}}
    write_run(runs, f"{name}{name}", "davis", 0, breakdown={f"{name}_1": {"J&F-Mean": 5.0}}, **options)
    write_run(runs, f"{name}2", "detection", 1, breakdown={name: {"bbox_mAP": 5.0, "segm_mAP": 5.0}}, **options)
    write_run(runs, f"{name}2", "segmentation", 1, artefacts={name: f"{name}.png", "training_log": name}, **options)
    write_run(runs, f"{name}3", "classification", 3, breakdown={name: {"20-NN top-1": 1.0}}, **options)
    return render(runs)


@pytest.mark.parametrize(("status", "options"), NO_BENCHMARK_NUMBERS.items(), ids=NO_BENCHMARK_NUMBERS)
def test_what_is_no_benchmark_number_is_bracketed(runs: Path, status: str, options: dict[str, Any]) -> None:
    mark = {"measured-sample": "S", "measured-subset": "P", "measured-deviating": "D"}[status]
    write_run(runs, "one", "davis", values={"J&F-Mean": 61.25, "J-Mean": 60.0, "F-Mean": 62.0}, **options)
    text = render(runs)
    shown = re.findall(rf'<a class="value {status}"[^>]*>([^<]*)<span class="mark" aria-hidden="true">(.)</span>', text)
    assert shown == [("[61.2]", mark), ("[60.0]", mark), ("[62.0]", mark)] + [("[61.2]", mark)] * 2
    assert not re.search(r'class="value measured[" ]', text)


def test_a_record_holds_what_the_result_states(runs: Path) -> None:
    deviations = {"topk": [5, 7], "nested": [{"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}]}
    change = {"config": {"topk": 7, "data": "here"}, "wall_time_s": 3725.0, "peak_memory_bytes": 3 * 2**29}
    result = write_run(runs, "one", "davis", change=change, deviations=deviations, settings={"temperature": 0.1}, seed=5)
    dirty = dataclasses.replace(result.environment, code=f"{'a' * 40}-dirty")
    write_run(runs, "two", "davis", 1, change={"environment": dirty})
    text = Page(render(runs)).text
    for expected in (
        *("davis-2017-label-propagation, version 1", "topk 5 7", "nested.b.c 2 3", "temperature 0.1"),
        *(result.datasets["test"].listing_sha256, "DAVIS 2017 val, the whole split: 30 items"),
        *(result.backbone.sha256, "one.pth: format own, branch teacher, epoch 200", result.inputs_sha256),
        *("1:02:05", "1.50 GiB", "Seed 5", "run0/davis/result.json", "python 3.11"),
        repr(result.metrics["J-Decay"].value),
        "python -m eval davis \\ --topk 7 \\ --data here",
        "The result does not state the commit of the code.",
        f"git checkout {'a' * 40} python -m eval",
        "The code had changes that no commit holds.",
    ):
        assert expected in text, expected


def test_published_rows_means_over_seeds_with_their_results_and_differences_are_shown(runs: Path) -> None:
    empty = Page(render(runs)).text
    assert [part for part in ("No results yet", "DINO+SelfPatch published ViT-S/16") if part not in empty] == []
    for seed in range(3):
        source = {"recipe_sha256": "e" * 64, "seed": seed}
        write_run(runs, "same", "davis", seed, values={"J&F-Mean": 60.0 + seed}, source=source)
    write_run(runs, "base", "davis", 3, values={"J&F-Mean": 58.0})
    text = render(runs, baseline="base")
    page = Page(text)
    shown = ("mean of 3 seeds", "61.0 ±1.0", "(J&F)m 62.0", "(+3.0)", "difference from base")
    assert [part for part in shown if part not in page.text] == []
    (cell,) = set(re.findall(r'<a class="value measured[^"]*" href="(#s-main-\d+)"', text))
    assert cell[1:] in page.values("id")


PLACES: dict[str, Any] = {"backbone": Path("runs/a b/file"), "data": Path("data/$HOME"), "output": Path("runs/x")}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("davis", {}),
    ("davis", {"name": "it's <b>; rm -rf 'x'", "year": "2016", "overlays": True, "topk": 7}),
    ("detection", {"epochs": 0.5, "taps": [0, 1, 2, 3], "scale_lr": True, "override": ['a.b="c d"', "e.f=[1,2]"]}),
    ("segmentation", {"head": "upernet", "name": "--name"}),
    ("classification", {"classifiers": ["knn"], "neighbours": [1, 20], "learning_rates": [0.1, 1e-4], "cache": Path("-c")}),
]


@pytest.mark.parametrize(("task", "options"), OPTIONS)
def test_the_task_reads_its_own_options_from_the_command(tmp_path: Path, task: str, options: dict[str, Any]) -> None:
    config = TASKS[task].config(**PLACES, **options)
    # What fine-tuning and dense retrieval add, which are no options; several processes are started again.
    stored = dataclasses.asdict(config) | {"batch": {"total": 8, "per_device": 8}, "chosen_distance": "cosine"}
    result = make_result("one", task)
    environment = dataclasses.replace(result.environment, world_size=8)
    # Writing and reading turns paths into texts.
    result = read_result(write_result(tmp_path, dataclasses.replace(result, config=stored, environment=environment)))
    shell = ["bash", "-c", f"printf '%s\\0' {reproduction_command(result)}"]
    words = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    assert words[:4] == ["python", "-m", "eval", task]
    assert words[-2:] == ["--gpus", "8"]
    assert parse(type(config), words[4:-2], "command") == config
