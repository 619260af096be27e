"""What the page shows of backbones that were pretrained here: recipe, data, epochs, the curves of the log, and pictures.

`tools/eval_all.sh` copies log and pictures to the folder `pretraining` beside a run's results.
"""

from collections.abc import Sequence
from typing import Any

from common.plots import read_log
from tables.collect import Measurement
from tables.report.pictures import PictureBudget, embed_picture, path_within
from tables.report.plots import draw_panels

_FOLDER = "pretraining"
_PANELS = {
    "Total loss": ["loss"],
    "Parts of the loss": ["cls_loss", "patch_loss"],
    "k-NN top-1 (%)": ["knn_top1"],
    "Learning rate": ["lr"],
}


def pretrainings(measurements: Sequence[Measurement], budget: PictureBudget) -> list[dict[str, Any]]:
    """The pretraining of each backbone whose results state one, as the template's macro `pretraining` shows it."""
    of_backbone: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        if measurement.result.backbone.source.get("log"):
            of_backbone.setdefault(measurement.result.backbone.sha256, []).append(measurement)
    return [_pretraining(results, budget) for results in of_backbone.values()]


def _pretraining(results: Sequence[Measurement], budget: PictureBudget) -> dict[str, Any]:
    first = results[0]
    source, anchor = first.result.backbone.source, f"pretraining-{first.number}"
    plots, pictures, problem = [], [], ""
    try:
        # Without a folder of its own, a run's results lie in that of all runs.
        if "/" not in first.path:
            raise ValueError("is missing")
        lines, _ = read_log(path_within(first.folder.parent, f"{_FOLDER}/log.jsonl"), "step")
        until = [line for line in lines if source["epoch"] < 0 or line.get("epoch", 0) < source["epoch"]]
        plots = draw_panels([{**line, "iteration": line["step"]} for line in until], _PANELS, anchor)
        for path in sorted((first.folder.parent / _FOLDER).glob("*.png")):
            shown_path = f"{first.name}/{_FOLDER}/{path.name}"
            embedded = embed_picture(first.folder.parent, f"{_FOLDER}/{path.name}", shown_path, budget)
            pictures.append({"title": path.stem, **embedded})
    except ValueError as error:
        problem = (
            f"{_FOLDER}/log.jsonl beside the results {error}; tools/eval_all.sh copies it there from a checkpoint's folder"
        )
    return {
        "anchor": anchor,
        "measurement": first,
        "results": results,
        "plots": plots,
        "pictures": pictures,
        "problem": problem,
    }
