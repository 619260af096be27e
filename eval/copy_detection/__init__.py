"""Copy detection on Copydays, by CLS token and pooled patches."""

from eval.registry import Benchmark, Column, Download, Task

TASK = Task(
    name="copy_detection",
    summary="Find the originals of Copydays' edited images by a backbone's frozen features.",
    folder="copydays",
    dataset="Copydays",
    downloads=(
        # The authors' own server is often down; this is the copy of facebookresearch/vissl, without the other two archives.
        *(
            Download(
                f"https://dl.fbaipublicfiles.com/vissl/datasets/copydays_{part}.tar.gz",
                f"copydays/{part}",
                f"copydays/{part}",
            )
            for part in ("original", "strong")
        ),
        *(
            Download(f"http://pascal.inrialpes.fr/data/holidays/copydays_{part}.tar.gz", "copydays", f"copydays/{folder}")
            for part, folder in (("jpeg", "jpegqual"), ("crop", "crops"))
        ),
    ),
    signs=("original", "strong"),
    benchmarks=(
        Benchmark(
            key="copydays",
            title="Copydays",
            task="copy_detection",
            protocol="copydays-dino",
            items="images",
            columns=(Column("copydays", "copydays_strong_map", "strong mAP", "mAP strong", "fraction", 3),),
        ),
    ),
    sample_options=("--workers", "0"),
    in_main_table=False,
    shared={"items": "eval.probes.means"},
)
