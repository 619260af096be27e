"""VIP: parts of persons that labels of a video's first frame carry through it, and mIoU."""

from eval.registry import Benchmark, Chart, Download, Task, columns_of
from eval.shared import IOU, VIDEOWALK

TASK = Task(
    name="vip",
    summary="Propagate parts of persons through each video of VIP by a backbone's features, and measure mIoU.",
    folder="VIP_Fine",
    dataset="VIP",
    downloads=(Download("https://sysu-hcp.net/lip/overview.php", ".", "VIP_Fine/Images"),),
    signs=("Images", "Annotations/Category_ids"),
    benchmarks=tuple(
        Benchmark(
            key=f"vip_{protocol}",
            title=f"VIP, {words}",
            task="vip",
            protocol=f"vip-{protocol}",
            items="videos",
            columns=columns_of(f"vip_{protocol}", IOU),
            charts=(Chart("IoU", "mIoU", "IoU per class"),),
        )
        for protocol, words in VIDEOWALK
    ),
    sample_options=("--overlays", "true"),
    in_main_table=False,
    shared={"items": "eval.probes.items"},
)
