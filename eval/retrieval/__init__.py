"""Image retrieval on revisited Oxford5k and Paris6k, by a backbone's CLS token."""

from eval.registry import Benchmark, DataSet, Download, Task, columns_of

_REVISITED = "http://cmp.felk.cvut.cz/revisitop/data/datasets"
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"  # revisitop's download.py has earlier names of the archives, without "v1"
_RPARIS = DataSet(
    "rparis6k",
    "revisited Paris6k",
    (
        *(Download(f"{_VGG}/parisbuildings/paris_{part}-v1.tgz", "rparis6k/jpg", "rparis6k/jpg") for part in (1, 2)),
        Download(f"{_REVISITED}/rparis6k/gnd_rparis6k.pkl", "rparis6k", "rparis6k/gnd_rparis6k.pkl"),
    ),
    ("gnd_rparis6k.pkl",),
)

TASK = Task(
    name="retrieval",
    summary="Rank the images of revisited Oxford5k or Paris6k for each query by a backbone's frozen features.",
    folder="roxford5k",
    dataset="revisited Oxford5k",
    downloads=(
        Download(f"{_VGG}/oxbuildings/oxbuild_images-v1.tgz", "roxford5k/jpg", "roxford5k/jpg"),
        Download(f"{_REVISITED}/roxford5k/gnd_roxford5k.pkl", "roxford5k", "roxford5k/gnd_roxford5k.pkl"),
    ),
    signs=("gnd_roxford5k.pkl",),
    benchmarks=tuple(
        Benchmark(
            key=f"retrieval_{key}",
            title=f"Image retrieval, {title}'s protocol",
            task="retrieval",
            protocol=f"revisited-{key}",
            items="queries",
            columns=columns_of(
                f"retrieval_{key}",
                tuple(
                    (f"{level.lower()}_{name.lower().replace('@', '')}", f"{level[0]} {name}", f"{name} {level}")
                    for level in ("Medium", "Hard", "Easy")  # papers print the first two
                    for name in ("mAP", "mP@1", "mP@5", "mP@10")
                ),
            ),
            any_dataset=True,
        )
        for key, title in (("dino", "DINO"), ("ibot", "iBOT"))
    ),
    sample_options=("--workers", "0"),
    in_main_table=False,
    further_sets=(_RPARIS,),
    shared={"items": "eval.probes.means"},
)
