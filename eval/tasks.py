"""The evaluation tasks: the one place that knows which there are.

To add a task: its folder, its entry here, its reference CSV in `tables/reference/`, its page in the docs. The folder `eval/NAME` has

    config.py   `NameConfig`, a dataclass of the options, for the task `name`; loads no torch
    task.py     `check(config, spec)` and `evaluate(config) -> Result`
    data.py     `examine(folder, deep, jobs) -> list[Finding]`, the data check (see `eval.findings`); loads no torch
    items.py    `read_items(result, folder) -> (names, means, metrics_of) | None`, for significance: the names of the N test items,
                ascending; {metric: values [N]} of the metrics that are means over them; and, for the others, None or a function
                from weights [R, N] of the items in R resampled sets to {metric: values [R]}

They are imported on demand, so that reading this registry loads neither torch nor OpenMMLab.
"""

from eval.registry import Benchmark, Chart, Column, DataSet, Download, Task, columns_of

__all__ = ["BENCHMARKS", "TASKS", "Benchmark", "Column", "DataSet", "Download", "Task", "named_tasks"]


# Columns: end of the key, heading, metric.
_AP = (
    *(("box_ap", "box AP", "bbox_mAP"), ("box_ap50", "box AP50", "bbox_mAP_50"), ("box_ap75", "box AP75", "bbox_mAP_75")),
    *(("mask_ap", "mask AP", "segm_mAP"), ("mask_ap50", "mask AP50", "segm_mAP_50"), ("mask_ap75", "mask AP75", "segm_mAP_75")),
)
_IOU = (("miou", "mIoU", "mIoU"), ("aacc", "aAcc", "aAcc"), ("macc", "mAcc", "mAcc"))
_PCK = tuple((f"pck{tenth}", f"PCK@.{tenth}", f"PCK@0.{tenth}") for tenth in range(1, 6))
_VIDEOWALK = (("cropmae", "CropMAE's protocol"), ("crw", "videowalk's protocol"))
_J_AND_F = (("jf_mean", "(J&F)m", "J&F-Mean"), ("j_mean", "Jm", "J-Mean"), ("f_mean", "Fm", "F-Mean"))


# Protocols of label propagation: the end of their benchmarks' keys, and what titles say of them.
_PROPAGATION = {
    "": "",
    "_dinov3": ", DINOv3's protocol",
    "_cropmae": ", CropMAE's protocol",
    "_crw": ", videowalk's protocol",
}
_COCO_SITE = "http://images.cocodataset.org"
_COCO_SPLITS = ("train2017", "val2017")
ADE20K_SET = DataSet(
    "ade/ADEChallengeData2016",
    "ADE20K",
    (
        Download(
            "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip", "ade", "ade/ADEChallengeData2016/images"
        ),
    ),
    ("images/training", "images/validation", "annotations/training", "annotations/validation"),
)
VOC2012_SET = DataSet(
    "VOCdevkit/VOC2012",
    "PASCAL VOC 2012",
    (
        Download(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar", ".", "VOCdevkit/VOC2012/JPEGImages"
        ),
    ),
    # VOC 2007 has folders of the same names.
    ("JPEGImages/2007_000027.jpg", "JPEGImages/2007_000032.jpg", "SegmentationClassAug"),
)
CITYSCAPES_SET = DataSet(
    "cityscapes",
    "Cityscapes",
    # The page demands an account.
    (Download("https://www.cityscapes-dataset.com/downloads", "cityscapes", "cityscapes/leftImg8bit"),),
    ("leftImg8bit/val", "gtFine/val", "leftImg8bit/train", "gtFine/train"),
)
COCO_STUFF_SET = DataSet(
    "cocostuff",
    "COCO-Stuff-27",
    (
        # By the README of https://github.com/nightrome/cocostuff.
        Download(
            "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
            "cocostuff/annotations",
            "cocostuff/annotations/val2017",
        ),
        *(
            Download(f"{_COCO_SITE}/zips/{split}.zip", "cocostuff/images", f"cocostuff/images/{split}")
            for split in _COCO_SPLITS
        ),
    ),
    ("annotations/train2017", "annotations/val2017"),
)
COCO20K_SET = DataSet(
    "coco20k",
    "COCO 20k",
    (
        Download(f"{_COCO_SITE}/zips/train2014.zip", "coco20k", "coco20k/train2014"),
        Download(f"{_COCO_SITE}/annotations/annotations_trainval2014.zip", "coco20k", "coco20k/annotations"),
        Download(
            "https://raw.githubusercontent.com/valeoai/LOST/master/datasets/coco_20k_filenames.txt",
            "coco20k",
            "coco20k/coco_20k_filenames.txt",
        ),
    ),
    ("coco_20k_filenames.txt", "annotations/instances_train2014.json"),
)
_REVISITED = "http://cmp.felk.cvut.cz/revisitop/data/datasets"
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"  # revisitop's download.py has earlier names of the archives, without "v1"
RPARIS_SET = DataSet(
    "rparis6k",
    "revisited Paris6k",
    (
        *(Download(f"{_VGG}/parisbuildings/paris_{part}-v1.tgz", "rparis6k/jpg", "rparis6k/jpg") for part in (1, 2)),
        Download(f"{_REVISITED}/rparis6k/gnd_rparis6k.pkl", "rparis6k", "rparis6k/gnd_rparis6k.pkl"),
    ),
    ("gnd_rparis6k.pkl",),
)
_ALL = (
    Task(
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
    ),
    Task(
        name="detection",
        fine_tunes=True,
        summary="Fine-tune Mask R-CNN on COCO and measure box and mask AP; every default is the published protocol's.",
        folder="coco",
        dataset="COCO 2017",
        downloads=(
            Download(f"{_COCO_SITE}/annotations/annotations_trainval2017.zip", "coco", "coco/annotations"),
            *(Download(f"{_COCO_SITE}/zips/{split}.zip", "coco", f"coco/{split}") for split in _COCO_SPLITS),
        ),
        signs=("annotations/instances_val2017.json", "annotations/instances_train2017.json", "train2017", "val2017"),
        benchmarks=(
            Benchmark(
                key="coco",
                title="COCO",
                task="detection",
                protocol="coco-mask-rcnn-1x",
                items="images",
                columns=columns_of("coco", _AP),
                footnotes={
                    "num_heads": "the released configuration fine-tunes with 8 attention heads, this run with the checkpoint's"
                },
                charts=(
                    Chart("bbox_mAP", "bbox_mAP", "Box AP per class"),
                    Chart("segm_mAP", "segm_mAP", "Mask AP per class"),
                ),
            ),
        ),
        sample_options=(
            *("--iterations", "60", "--batch-size", "2", "--short-side", "160", "--workers", "0"),
            # A learning rate for so few updates; fewer regions and boxes, for speed.
            "--override",
            "optim_wrapper.optimizer.lr=1e-3",
            "model.train_cfg.rcnn.sampler.num=32",
            "model.test_cfg.rpn.max_per_img=100",
            "model.test_cfg.rcnn.max_per_img=20",
        ),
    ),
    Task(
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
                columns=columns_of(key, _IOU),
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
    ),
    Task(
        name="classification",
        summary="Measure a backbone's frozen features by weighted k-NN and a linear probe.",
        folder="imagenet",
        dataset="ImageNet-1k",
        # The page demands an account.
        downloads=(Download("https://image-net.org/download-images.php", "imagenet", "imagenet/train"),),
        # A class of every copy of ImageNet; `train` alone would be found in too many places.
        signs=("train/n01440764", "val/n01440764"),
        benchmarks=tuple(
            Benchmark(
                key=key,
                title=title,
                task="classification",
                protocol="dino-classification",
                items="images",
                metric_pattern=pattern,
                any_dataset=True,
                unrelated_settings=unrelated,
            )
            for key, title, pattern, unrelated in (
                (
                    *("knn", "k-NN", r"(\d+)-NN top-([15])"),
                    r"classifiers|epochs|batch_size|learning_rates?|training_images|linear_.*",
                ),
                ("linear", "Linear", r"linear top-([15])", r"classifiers|temperature|neighbours|knn_features"),
            )
        ),
        # The probe takes about a hundred passes over ImageNet, k-NN one.
        default_options=("--classifiers", "knn"),
        # The sample has 64 training images.
        sample_options=("--neighbours", "10", "20", "--workers", "0"),
        in_main_table=False,
    ),
    Task(
        name="linear_segmentation",
        summary="Train a linear layer on a frozen backbone's patches to segment ADE20K or another labelled set, and measure mIoU.",
        folder=ADE20K_SET.folder,
        dataset=ADE20K_SET.dataset,
        downloads=ADE20K_SET.downloads,
        signs=ADE20K_SET.signs,
        benchmarks=tuple(
            Benchmark(
                key=f"linseg_{protocol}",
                title=f"Linear segmentation, {title}",
                task="linear_segmentation",
                protocol=f"linear-segmentation-{protocol}",
                items="images",
                columns=columns_of(f"linseg_{protocol}", _IOU),
                any_dataset=True,
                charts=(Chart("IoU", "mIoU", "IoU per class"),),
            )
            for protocol, title in (
                ("dinov3", "DINOv3's protocol"),
                ("dinov2", "DINOv2's protocol"),
                ("neco", "NeCo's protocol"),
            )
        ),
        sample_options=(
            *("--iterations", "40", "--evaluate-every", "20", "--batch-size", "4", "--size", "128", "--workers", "0"),
            *("--learning-rates", "0.01"),
        ),
        in_main_table=False,
        further_sets=(VOC2012_SET, CITYSCAPES_SET, COCO_STUFF_SET),
    ),
    Task(
        name="depth",
        summary="Train a linear layer on a frozen backbone's patches to predict depth on NYU, and measure its error.",
        folder="nyu",
        dataset="NYU depth v2",
        # Its README links the 24k training pairs and the 654 test pairs.
        downloads=(Download("https://github.com/cleinc/bts", "nyu", "nyu/nyu_train.txt"),),
        signs=("nyu_train.txt", "nyu_test.txt"),
        benchmarks=(
            Benchmark(
                key="depth",
                title="NYU depth, linear",
                task="depth",
                protocol="depth-dinov3",
                items="images",
                columns=(
                    Column("depth", "depth_rmse", "RMSE (m)", "rmse", "m", 3, higher_is_better=False),
                    Column("depth", "depth_abs_rel", "AbsRel", "abs_rel", "fraction", 3, higher_is_better=False),
                    Column("depth", "depth_a1", "a1", "a1", "fraction", 3),
                ),
            ),
        ),
        # A learning rate and a crop for so few updates of small images.
        sample_options=(
            *("--iterations", "60", "--batch-size", "4", "--crop", "96", "128", "--workers", "0"),
            *("--learning-rate", "0.02"),
        ),
        in_main_table=False,
    ),
    Task(
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
                columns=columns_of(f"vip_{protocol}", _IOU),
                charts=(Chart("IoU", "mIoU", "IoU per class"),),
            )
            for protocol, words in _VIDEOWALK
        ),
        sample_options=("--overlays", "true"),
        in_main_table=False,
    ),
    Task(
        name="jhmdb",
        summary="Propagate the joints of persons through each video of JHMDB by a backbone's features, and measure PCK.",
        folder="JHMDB",
        dataset="JHMDB",
        # Its page links joint positions, frames (Rename_Images) and splits.
        downloads=(Download("http://jhmdb.is.tue.mpg.de/challenge/JHMDB/datasets", "JHMDB", "JHMDB/joint_positions"),),
        signs=("joint_positions", "Rename_Images"),
        benchmarks=tuple(
            Benchmark(
                key=f"jhmdb_{protocol}",
                title=f"JHMDB, {words}",
                task="jhmdb",
                protocol=f"jhmdb-{protocol}",
                items="videos",
                columns=columns_of(f"jhmdb_{protocol}", _PCK),
                charts=(Chart("PCK@0.1", "PCK@0.1", "PCK@.1 per joint"),),
            )
            for protocol, words in _VIDEOWALK
        ),
        sample_options=("--overlays", "true"),
        in_main_table=False,
    ),
    Task(
        name="retrieval_segmentation",
        summary="Segment images by the labels of the most similar patches of training images, with a backbone's frozen features.",
        folder=VOC2012_SET.folder,
        dataset=VOC2012_SET.dataset,
        downloads=VOC2012_SET.downloads,
        signs=VOC2012_SET.signs,
        benchmarks=tuple(
            Benchmark(
                key=key,
                title=title,
                task="retrieval_segmentation",
                protocol=protocol,
                items="images",
                columns=columns_of(key, _IOU[:2]),
                any_dataset=True,
                charts=(Chart("IoU", "mIoU", "IoU per class"),),
            )
            for key, title, protocol in (
                ("hummingbird_102k", "Retrieval, memory 102k", "hummingbird-102k"),
                ("hummingbird_1m", "Retrieval, memory 1.02M", "hummingbird-1.02m"),
                ("hummingbird_10m", "Retrieval, memory 10.24M", "hummingbird-10.24m"),
                ("hummingbird_fixed_102k", "Retrieval without quirks, memory 102k", "hummingbird-fixed-102k"),
                ("hummingbird_fixed_1m", "Retrieval without quirks, memory 1.02M", "hummingbird-fixed-1.02m"),
                ("hummingbird_fixed_10m", "Retrieval without quirks, memory 10.24M", "hummingbird-fixed-10.24m"),
                ("capi_knn", "Patch k-NN", "capi-knn"),
            )
        ),
        # The smallest memory with published values has more patches than the sample.
        sample_options=("--input-size", "128", "--memory-size", "1000", "--workers", "0"),
        in_main_table=False,
        further_sets=(ADE20K_SET, CITYSCAPES_SET, COCO_STUFF_SET),
    ),
    Task(
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
        further_sets=(RPARIS_SET,),
    ),
    Task(
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
    ),
    Task(
        name="object_discovery",
        summary="Find one object in each image by the keys of a ViT's last block, with LOST or TokenCut, and measure CorLoc.",
        folder="VOCdevkit/VOC2007",
        dataset="PASCAL VOC 2007",
        downloads=(
            Download(
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
                ".",
                "VOCdevkit/VOC2007/JPEGImages",
            ),
        ),
        signs=("JPEGImages/000005.jpg", "JPEGImages/000007.jpg"),
        benchmarks=tuple(
            Benchmark(
                key=key,
                title=f"Object discovery, {title}",
                task="object_discovery",
                protocol=f"object-discovery-{key}",
                items="images",
                columns=columns_of(key, (("corloc", "CorLoc", "CorLoc"),)),
                any_dataset=True,
            )
            for key, title in (("lost", "LOST"), ("tokencut", "TokenCut"))
        ),
        sample_options=("--workers", "0"),
        in_main_table=False,
        further_sets=(VOC2012_SET, COCO20K_SET),
    ),
)

TASKS = {task.name: task for task in _ALL}
BENCHMARKS = {benchmark.key: benchmark for task in _ALL for benchmark in task.benchmarks}

GROUPS = {"frozen": ("classification", "linear_segmentation", "retrieval_segmentation", "davis")}
"""Names that stand for several tasks, each of which runs where its data is there."""


def named_tasks(names: str) -> list[str]:
    """The tasks in a text, by their names or those of `GROUPS`, separated by commas; ValueError for an unknown name, or for none."""
    named = _names(names)
    unknown = [name for name in named if name not in TASKS and name not in GROUPS]
    if unknown or not named:
        problem = f"unknown {', '.join(unknown)}" if unknown else f"{names!r} names no task"
        raise ValueError(f"--tasks: {problem}; tasks: {', '.join((*TASKS, *GROUPS))}")
    return list(dict.fromkeys(task for name in named for task in GROUPS.get(name, (name,))))


def optional_tasks(names: str) -> set[str]:
    """The tasks in a text that only a group names."""
    named = _names(names)
    return {task for name in named for task in GROUPS.get(name, ())}.difference(named)


def _names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
