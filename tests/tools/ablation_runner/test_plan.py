"""From options to jobs: names, shared runs, seeds, what is refused before anything starts."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from common.command import parse_config
from tools.ablation_runner.job import JobOptions
from tools.ablation_runner.plan import AblationOptions, plan_jobs, plan_others
from tools.ablation_runner.rows import ROWS


def options(data: Path, **others: Any) -> AblationOptions:
    return AblationOptions(data=data, scale="tiny", **others)


def test_rows_of_one_recipe_share_a_run(ablation_data: Path) -> None:
    jobs = plan_jobs("components", options(ablation_data))
    assert [job.rows for job in jobs if len(job.rows) > 1] == [("b-3x3", "c-k4", "d-on")]
    assert sum(len(job.rows) for job in jobs) == len(ROWS["components"])
    assert len({job.options.folder for job in jobs}) == len(jobs)


def test_a_run_that_departs_from_its_recipe_says_so_in_its_name(ablation_data: Path, tmp_path: Path) -> None:
    (tiny,) = plan_jobs("components", options(ablation_data, only=["a"]))
    assert tiny.name == "coco_dino_vit_tiny-deviating"
    assert {"train.epochs", "images"} <= tiny.departures.keys()
    # Nothing is there: a dry run counts COCO's images.
    (full,) = plan_jobs("components", AblationOptions(data=tmp_path / "absent", only=["a"]), look_only=True)
    assert (full.name, full.departures, full.images) == ("coco_dino_vit_tiny", {}, 118_287)
    (longer,) = plan_jobs(
        "components", AblationOptions(data=tmp_path, only=["a"], pretraining=["train.epochs=300"]), look_only=True
    )
    assert (longer.name, longer.departures) == ("coco_dino_vit_tiny-deviating", {"train.epochs": "200 -> 300"})


def test_rows_left_out_may_have_been_run_before_unless_the_options_do_not_fit_them(ablation_data: Path) -> None:
    given = options(ablation_data, only=["dino-ti16"], pretraining=["dino.out_dim=64"])
    planned = plan_jobs("compatibility", given)
    others = plan_others("compatibility", given, planned)
    assert [job.options.recipe for job in others] == [
        "coco_selfpatch_vit_tiny",
        "coco_dino_vit_tiny8",
        "coco_selfpatch_vit_tiny8",
    ]


def test_each_seed_is_a_run_of_its_own(ablation_data: Path) -> None:
    jobs = plan_jobs("compatibility", options(ablation_data, only=["moby-swin", "dino-ti8"], seeds=[0, 3]))
    assert [job.name for job in jobs] == [
        *("coco_moby_swin_tiny-deviating-seed0", "coco_moby_swin_tiny-deviating-seed3"),
        *("coco_dino_vit_tiny8-deviating-seed0", "coco_dino_vit_tiny8-deviating-seed3"),
    ]
    assert [job.config.train.seed for job in jobs] == [0, 3, 0, 3]
    assert all("train.seed" not in job.departures for job in jobs)


def test_a_job_survives_its_command_line(ablation_data: Path) -> None:
    for job in plan_jobs("components", options(ablation_data, only=["a", "d-on"], seeds=[1], evaluation=["jobs=2", "topk=3"])):
        again = parse_config(JobOptions, "job", job.options.arguments())
        assert again == job.options
        assert again.pretrain_config() == job.config
        assert again.davis_config().topk == 3
        assert again.davis_config().output == job.options.result.parent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"only": ["e"]}, "--only: no row e"),
        ({"pretraining": ["train.epoch=3"]}, "epoch"),
        ({"pretraining": ["moby.queue=3"]}, "`moby` have no effect"),
        ({"pretraining": ["train.epochs"]}, "'train.epochs' is no KEY=VALUE"),
        ({"evaluation": ["top=3"]}, "top"),
        ({"data": Path("nowhere")}, "nowhere/coco/train2017 is not a folder"),
    ],
)
def test_mistakes_are_found_before_any_job(ablation_data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_jobs("components", dataclasses.replace(options(ablation_data, only=["a"]), **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"seeds": [1, 1]}, "--seeds 1 1"), ({"seeds": [-1]}, "--seeds -1"), ({"images_per_second": 0.0}, "positive")],
)
def test_options_without_meaning(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AblationOptions(**changes)
