"""Semantic FPN and UperNet on ADE20K."""

from eval.registry import Benchmark, Chart, Task, columns_of
from eval.shared import ADE20K_SET, IOU

TASK = Task(
    name="segmentation",
    fine_tunes=True,
    summary="Fine-tune Semantic FPN or UperNet on ADE20K and measure mIoU; every default is the published protocol's.",
    folder=ADE20K_SET.folder,
    dataset=ADE20K_SET.dataset,
    downloads=ADE20K_SET.downloads,
    signs=ADE20K_SET.signs,
    benchmarks=tuple(
        Benchmark(
            key=key,
            title=title,
            task="segmentation",
            protocol=protocol,
            items="images",
            columns=columns_of(key, IOU),
            charts=(Chart("IoU", "mIoU", "IoU per class"),),
        )
        for key, title, protocol in (
            ("ade20k", "ADE20K", "ade20k-semantic-fpn-40k"),
            ("upernet", "ADE20K, UperNet", "ade20k-upernet-160k"),
        )
    ),
    sample_options=(
        *("--iterations", "40", "--batch-size", "4", "--crop", "128", "--workers", "0"),
        *("--train-short-side", "144", "--test-short-side", "144"),
    ),
    shared={"items": "eval.probes.items"},
)
