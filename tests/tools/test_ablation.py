"""The ablations: the recipe of each row, the cost of a run, and the whole command at toy size."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrain.config import PretrainConfig, parse_run
from tests.conftest import RunMain
from tools.ablation import AblationOptions, main, plan_jobs
from tools.ablation_runner.cost import measure_work, speed_of
from tools.ablation_runner.job import MODULE, Job, as_options
from tools.ablation_runner.job import main as run_job
from tools.ablation_runner.rows import COCO_IMAGES, ROWS, Table, choose_rows, departures, published_rows, tiny_changes

DINO, AVERAGE = "coco_dino_vit_tiny-deviating", "coco_selfpatch_vit_tiny_average-deviating"


@pytest.fixture(scope="module")
def ablation_data(small_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample data as the ablations' `--data` has it: the photographs are in the place of COCO train2017."""
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "coco").mkdir()
    (folder / "coco" / "train2017").symlink_to(small_samples / "photos")
    (folder / "DAVIS").symlink_to(small_samples / "DAVIS")
    return folder


def described(config: PretrainConfig) -> dict[str, str]:
    """The descriptors of a recipe in the published tables."""
    methods = {"dino": "DINO", "moby": "MoBY", "selfpatch": "DINO+SelfPatch", "moby_selfpatch": "MoBY+SelfPatch"}
    found = {
        "method": methods[config.method],
        "backbone": "Swin-T" if config.backbone.family == "swin" else f"ViT-Ti/{config.backbone.patch_size}",
        "pretraining_data": {"train2017": "COCO"}[config.data.path.name],
        **dict.fromkeys(("patch_negatives", "neighbours", "k", "aggregation"), ""),
    }
    if config.reads("selfpatch"):
        patch = config.selfpatch
        found |= {"patch_negatives": "yes" if patch.negatives else "no", "k": str(patch.k)}
        found["neighbours"] = {3: "3x3", 5: "5x5", 0: "all"}[patch.window]
        found["aggregation"] = {"attention": "on", "average": "off (average pooling)"}[patch.aggregation]
    return found


@pytest.mark.parametrize("table", ["components", "compatibility"])
def test_every_published_row_has_the_recipe_that_it_describes(table: Table) -> None:
    published = published_rows(table)
    assert len(published) > 0
    for (row, name), reference in zip(ROWS[table].items(), published, strict=True):
        recipe = parse_run([name])
        assert row.startswith(reference.descriptors.get("part", ""))
        columns = {name: value for name, value in reference.descriptors.items() if name not in ("part", "epochs")}
        assert columns.items() <= described(recipe).items(), row
        assert described(changed(name, *tiny_changes(recipe))) == described(recipe), row


def changed(recipe: str, *changes: str) -> PretrainConfig:
    return parse_run([recipe, *as_options(changes)])


def test_only_changes_of_what_is_computed_are_departures() -> None:
    name = "coco_selfpatch_vit_tiny"
    elsewhere = ["data.path=x/coco/train2017", "data.workers=3", "train.output=y", "train.log_every=7", "train.seed=4"]
    assert departures(changed(name), changed(name, *elsewhere), COCO_IMAGES) == []
    found = departures(changed(name), changed(name, "selfpatch.k=3", "data.path=any/photos"), 48)
    assert found == ["selfpatch.k 4 -> 3", "images 118287 of COCO train2017 -> 48 of any/photos"]


def test_flops_of_dino_by_hand() -> None:
    width, flops = 192, 0
    for side, crops in ((96, 2), (80, 2)):
        patches = (side // 16) ** 2
        tokens = patches + 1
        # In each block qkv, projection and a four times wider MLP take 12 width^2 per token, attention 2 width tokens.
        blocks = 2 * 12 * tokens * (12 * width**2 + 2 * width * tokens)
        embedding = 2 * patches * width * 3 * 16**2
        # Backward takes twice the operations of forward, except in the embedding, whose input needs no gradient.
        flops += crops * (3 * blocks + 2 * embedding)
        if side == 96:  # the teacher sees the two global crops
            flops += crops * (blocks + embedding)
    config = changed("coco_dino_vit_tiny", *tiny_changes(parse_run(["coco_dino_vit_tiny"])), "train.device=cpu")
    work = measure_work(config, 48)
    assert work.flops_per_image == pytest.approx(flops, rel=0.01)
    assert (work.steps, work.images, work.flops) == (18, 144, 144 * work.flops_per_image)
    assert speed_of(config, "run", work, 10.0)[0] == 10 * work.flops_per_image
    assert "timed just now over 2 steps of 2 random images on the CPU" in speed_of(config, "run", work, None)[1]


def plan(data: Path, table: Table = "components", **others: Any) -> list[Job]:
    return plan_jobs(AblationOptions(table=table, data=data, scale="tiny", **others))


def test_rows_of_one_recipe_share_a_run_and_each_seed_has_its_own(ablation_data: Path) -> None:
    chosen = choose_rows("components", ["d-off", "coco_selfpatch_vit_tiny", "a"])
    assert list(chosen) == ["a", "b-3x3", "c-k4", "d-off", "d-on"]
    jobs = plan(ablation_data)
    assert [job.rows for job in jobs if len(job.rows) > 1] == [("b-3x3", "c-k4", "d-on")]
    assert sum(len(job.rows) for job in jobs) == len(ROWS["components"])
    jobs = plan(ablation_data, "compatibility", only=["moby-swin"], seeds=[0, 3])
    names = ["coco_moby_swin_tiny-deviating-seed0", "coco_moby_swin_tiny-deviating-seed3"]
    assert [(job.name, job.config.train.seed) for job in jobs] == list(zip(names, (0, 3), strict=True))
    assert not [change for job in jobs for change in job.departures if "seed" in change]


def test_the_name_of_a_run_says_that_it_departs_from_its_recipe(ablation_data: Path, tmp_path: Path) -> None:
    (short,) = plan(ablation_data, only=["a"])
    assert short.name == DINO
    assert {"train.epochs", "images"} <= {change.split()[0] for change in short.departures}
    # A dry run takes absent images for COCO's.
    absent: dict[str, Any] = {"table": "components", "data": tmp_path / "absent", "only": ["a"], "dry_run": True}
    (full,) = plan_jobs(AblationOptions(**absent))
    assert (full.name, full.departures, full.images) == ("coco_dino_vit_tiny", [], 118_287)
    (longer,) = plan_jobs(AblationOptions(**absent, pretraining=["train.epochs=300"]))
    assert (longer.name, longer.departures) == (DINO, ["train.epochs 200 -> 300"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"only": ["e"]}, "--only: no row e in the table components; its rows: a, b-3x3"),
        ({"pretraining": ["moby.queue=3"]}, "`moby` have no effect"),
        ({"pretraining": ["train.epochs"]}, "'train.epochs' is not KEY=VALUE"),
        ({"evaluation": ["top=3"]}, "top"),
        ({"evaluation": ["protocol=crw"]}, "protocol=crw: the published rows are of DINO's"),
        ({"data": Path("nowhere")}, "nowhere/coco/train2017 is not a folder"),
        ({"seeds": [1, 1]}, "--seeds 1 1"),
    ],
)
def test_mistakes_are_found_before_any_job(ablation_data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**{"data": ablation_data, "only": ["a"], **changes})


EPOCHS = 2


def arguments(data: Path, folder: Path, others: str) -> list[object]:
    places = ["--data", data, "--runs", folder / "runs", "--output", folder / "results"]
    shortest = [f"train.epochs={EPOCHS}", "backbone.depth=2", "views.local_crops=1", "data.workers=0"]
    options = [*others.split(), "--pretraining", *shortest, "--evaluation", "jobs=1"]
    return ["components", "--scale", "tiny", *places, *options]


def test_a_failed_job_is_named_at_the_end_and_the_others_run(
    ablation_data: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def start(command: list[str]) -> "subprocess.Popen[bytes]":
        assert command[1:3] == ["-m", MODULE]
        started.append(command[command.index("--name") + 1])
        return popen([sys.executable, "-c", f"raise SystemExit({3 if len(started) == 1 else 0})"])

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    (tmp_path / "runs").mkdir()
    finished = run_main(main, arguments(ablation_data, tmp_path, "--only a d-off"))
    assert (finished.status, started) == (1, [DINO, AVERAGE])
    assert finished.stdout.splitlines()[-1] == f"failed with status 3: {DINO}; the same command tries it again"


def _csv_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open() as stream:
        return {row["row"]: row for row in csv.DictReader(stream)}


def test_two_rows_fill_their_places_in_the_table_and_are_not_run_again(
    ablation_data: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.ablation._run", lambda job, options: run_job(job.options.arguments()))
    command, runs = arguments(ablation_data, tmp_path, "--only a d-off"), tmp_path / "runs"
    shown = run_main(main, command).output()
    measured = json.loads((runs / AVERAGE / "davis" / "result.json").read_text())["metrics"]["J&F-Mean"]["value"]
    for_people, rows = (_csv_rows(tmp_path / "results" / f"ablation_components{end}.csv") for end in ("", "_full"))
    assert list(rows) == list(ROWS["components"])
    assert [name for name, row in rows.items() if row["measured"]] == ["a", "d-off"]
    off = rows["d-off"]
    assert (off["published"], float(off["measured"]), off["standing"]) == ("51.4", measured, "sample")
    assert f"train.epochs 200 -> {EPOCHS}" in off["pretraining"]
    shown_off = for_people["d-off"]
    assert (shown_off["measured"], shown_off["seeds"], shown_off["pretraining"]) == (f"{measured:.1f}", "1", "departs")
    assert "runs" not in shown_off
    assert AVERAGE in (tmp_path / "results" / "components.csv").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    # What `--only` leaves out is compared, too, if an earlier command ran it.
    of_one = arguments(ablation_data, tmp_path, "--only a")
    assert run_main(main, of_one).output() == shown
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == stamps
    (runs / AVERAGE / "ablation.json").write_text("{")
    assert f"{AVERAGE}/ablation.json: damaged" in run_main(main, of_one).mistake()


def test_the_dry_run_lists_jobs_and_their_cost_and_nothing_is_started(
    ablation_data: Path, tmp_path: Path, run_main: RunMain
) -> None:
    command = arguments(ablation_data, tmp_path, "--only a d-off --dry-run --images-per-second 0.025")
    shown = run_main(main, command).output()
    dino, average = (line.split() for line in shown.splitlines()[2:4])
    # 16 photographs make 2 steps of 8 images; the 32 images of 2 epochs take 1280 s at 0.025 images per second.
    assert dino[:6] == [DINO, "a", "new", "2", "4", "32"]
    assert dino[-4:] == ["21", "min", "20", "s"]
    assert average[:3] == [AVERAGE, "d-off", "new"]
    assert f"python -m tools.ablation_runner --name {DINO} --recipe coco_dino_vit_tiny" in shown
    assert not list(tmp_path.iterdir())
