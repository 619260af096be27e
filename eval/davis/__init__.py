"""DAVIS-2017 semi-supervised video segmentation by label propagation. Needs no OpenMMLab package."""

from eval.registry import Benchmark, Chart, Download, Task, columns_of

# Protocols: the end of their benchmarks' keys, and what titles say of them.
_PROPAGATION = {
    "": "",
    "_dinov3": ", DINOv3's protocol",
    "_cropmae": ", CropMAE's protocol",
    "_crw": ", videowalk's protocol",
}
_J_AND_F = (("jf_mean", "(J&F)m", "J&F-Mean"), ("j_mean", "Jm", "J-Mean"), ("f_mean", "Fm", "F-Mean"))

TASK = Task(
    name="davis",
    summary="Propagate the first frame's labels through each DAVIS video by a backbone's features, and score the masks.",
    folder="DAVIS",
    dataset="DAVIS-2017",
    # Linked from https://davischallenge.org/davis2017/code.html.
    downloads=(
        Download("https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip", ".", "DAVIS/JPEGImages"),
    ),
    signs=("JPEGImages/480p", "Annotations/480p"),  # PASCAL VOC has folders of the upper names, too
    benchmarks=tuple(
        Benchmark(
            key=f"{key}{suffix}",
            title=f"{title}{words}",
            task="davis",
            protocol=f"{protocol}-label-propagation{suffix.replace('_', '-')}",
            items="sequences",
            columns=columns_of(f"{key}{suffix}", _J_AND_F),
            any_dataset=key == "vos",
            charts=(Chart("J&F-Mean", "J&F-Mean", "J&F per sequence (mean over its objects)"),),
        )
        for suffix, words in _PROPAGATION.items()
        for key, title, protocol in (
            ("davis", "DAVIS-2017", "davis-2017"),
            ("davis_2016", "DAVIS-2016", "davis-2016"),
            ("vos", "Objects that may begin later", "vos"),  # YouTube-VOS and MOSE
        )
    ),
    sample_options=("--overlays", "true"),
)
