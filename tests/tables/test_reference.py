"""The published digits, transcribed a second time, by column instead of by row; and the table of published checkpoints."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import backbones.layouts
from eval.tasks import BENCHMARKS
from tables.layout import COMPATIBILITY, COMPONENTS, DAVIS_2016, FROZEN, LAYOUTS, MAIN, TRACKING, UPERNET, layouts_for
from tables.reference import REFERENCE_FOLDER, read_checkpoints, read_reference
from tests.tables.conftest import make_result

MAIN_COLUMNS = {
    "coco_box_ap": "38.9 38.5 40.3 40.3 40.1 39.8 41.1 40.8 42.1",
    "coco_box_ap50": "59.2 60.4 59.9 60.6 61.0 62.6 63.7 63.4 64.9",
    "coco_box_ap75": "42.4 41.4 44.3 44.2 43.9 43.1 44.8 44.2 46.1",
    "coco_mask_ap": "35.5 35.4 36.4 36.4 36.4 37.1 37.6 37.3 38.5",
    "coco_mask_ap50": "56.2 57.0 57.0 57.5 58.0 59.6 60.3 59.9 61.3",
    "coco_mask_ap75": "37.8 37.7 39.2 38.9 38.9 39.2 39.8 39.5 40.8",
    "ade20k_miou": "35.8 35.4 37.2 36.6 37.3 35.3 39.5 38.3 41.2",
    "ade20k_aacc": "77.6 77.5 78.5 78.4 78.4 78.9 79.9 79.0 80.7",
    "ade20k_macc": "45.1 44.9 47.1 46.4 46.7 45.9 50.5 49.4 52.1",
    "davis_jf_mean": "55.5 57.4 50.7 49.3 56.7 53.5 54.7 60.7 62.7",
    "davis_j_mean": "56.0 57.6 52.6 51.2 57.0 51.2 52.0 59.1 60.7",
    "davis_f_mean": "55.0 57.3 48.9 47.3 56.4 55.9 57.3 62.4 64.7",
}
FROZEN_DIGITS = {
    "ADE20K lin. (DINOv3)": {
        **{"DINOv3 S/16": "47.0", "DINOv3 S+/16": "48.8", "DINOv3 B/16": "51.8", "DINOv3 L/16": "54.9", "DINOv3 H+/16": "54.8"},
        **{"DINOv3 7B/16": "55.9", "DINOv3 ConvNeXt-T": "42.7", "DINOv3 ConvNeXt-S": "44.8", "DINOv3 ConvNeXt-B": "46.3"},
        "DINOv3 ConvNeXt-L": "47.8",
    },
    "VOC lin. (DINOv2)": {
        **{"DINO B/16": "62.92", "MAE B/16": "50.29", "DeiT-III B/16": "71.03", "CLIP B/16": "77.75"},
        **{"DINOv2 S/14": "81.78", "DINOv2 B/14": "83.52", "DINOv2 L/14": "83.43"},
        **{"DINOv2, registers S/14": "80.88", "DINOv2, registers B/14": "83.48", "DINOv2, registers L/14": "83.21"},
    },
    "ADE20K lin. (DINOv2)": {
        **{"DINO B/16": "31.03", "MAE B/16": "23.84", "DeiT-III B/16": "32.84", "CLIP B/16": "40.50"},
        **{"DINOv2 S/14": "44.05", "DINOv2 B/14": "47.02", "DINOv2 L/14": "47.53"},
        **{"DINOv2, registers S/14": "44.36", "DINOv2, registers B/14": "47.73", "DINOv2, registers L/14": "48.44"},
    },
    "VOC lin. (NeCo)": {
        **{"Leopart S/16": "69.3", "DINO+NeCo S/16": "65.8", "TimeT+NeCo S/16": "68.5", "Leopart+NeCo S/16": "68.3"},
        **{"DINOv2+NeCo S/14": "81.4", "DINOv2+NeCo B/14": "84.5"},
    },
    "ADE20K lin. (NeCo)": {"Franca B/14": "39.1", "Franca L/14": "41.3", "Franca g/14": "42.4"},
    "VOC retrieval 102k": {
        **{"DINO S/16": "37.2", "DINO B/16": "44.9"},
        **{"DINOv2 S/14": "70.2", "DINOv2 B/14": "69.1", "DINOv2 L/14": "64.6", "DINOv2 g/14": "62.3"},
    },
    "VOC retrieval 1.02M": {
        **{"DINO S/16": "43.1", "DINO B/16": "50.8"},
        **{"DINOv2 S/14": "74.9", "DINOv2 B/14": "74.6", "DINOv2 L/14": "71.7", "DINOv2 g/14": "69.9"},
    },
    "VOC retrieval 10.24M": {
        **{"DINO S/16": "46.6", "DINO B/16": "55.7"},
        **{"DINOv2 S/14": "77.0", "DINOv2 B/14": "76.9", "DINOv2 L/14": "74.8", "DINOv2 g/14": "73.6"},
        **{"Franca B/14": "75.7", "Franca L/14": "73.5", "Franca g/14": "76.7"},
        **{"CrIBo S/16": "73.2 58.1", "CrIBo B/16": "74.9"},
    },
    "ADE20K retrieval 10.24M": {"CrIBo S/16": "28.3 23.4", "CrIBo B/16": "30.0"},
    "ADE20K patch k-NN (CAPI)": {"CAPI L/14": "35.2 32.1 29.7 29.2"},
    "NYU RMSE in m (DINOv3)": {
        **{"DINOv3 S/16": "0.403", "DINOv3 S+/16": "0.399", "DINOv3 B/16": "0.373", "DINOv3 L/16": "0.352"},
        **{"DINOv3 H+/16": "0.352", "DINOv3 7B/16": "0.309", "DINOv3 ConvNeXt-T": "0.448", "DINOv3 ConvNeXt-S": "0.432"},
        **{"DINOv3 ConvNeXt-B": "0.420", "DINOv3 ConvNeXt-L": "0.403"},
    },
    "NYU RMSE in m (Denoising-ViT)": {
        **{"DINO B/16": "0.5742", "MAE B/16": "0.6629", "DeiT-III B/16": "0.5837"},
        **{"DINOv2 S/14": "0.4340", "DINOv2 B/14": "0.3965", "DINOv2 L/14": "0.3831"},
    },
}
"""Column -> method and backbone -> digits, of several pretraining data sets in the order of the rows."""
CHECKPOINTS = read_checkpoints()


def test_main_holds_the_published_digits() -> None:
    rows = read_reference(MAIN)
    methods = ["MoCo-v2", "SwAV", "DenseCL", "ReSim", "DetCo", "MoCo-v3", "MoBY", "DINO", "DINO+SelfPatch"]
    assert [row.descriptors["method"] for row in rows] == methods
    assert [row.descriptors["backbone"] for row in rows] == ["R50"] * 5 + ["ViT-S/16"] * 4
    assert {key: " ".join(row.cells[key].text for row in rows) for key in MAIN_COLUMNS} == MAIN_COLUMNS


def test_the_ablations_hold_the_published_digits() -> None:
    off = "off (average pooling)"
    rows = read_reference(COMPONENTS)
    names = ("part", "neighbours", "k", "aggregation")
    assert {tuple(row.descriptors[name] for name in names): row.cells["davis_jf_mean"].text for row in rows} == {
        ("a", "", "", ""): "55.1",
        **{("b", size, "4", "on"): value for size, value in (("3x3", "57.0"), ("5x5", "56.5"), ("all", "47.3"))},
        **{("c", "3x3", k, "on"): value for k, value in (("1", "56.3"), ("2", "56.4"), ("4", "57.0"), ("8", "56.5"))},
        **{("d", "3x3", "4", on): value for on, value in ((off, "51.4"), ("on", "57.0"))},
    }
    assert {(row.descriptors["backbone"], row.descriptors["pretraining_data"]) for row in rows} == {("ViT-Ti/16", "COCO")}
    rows = read_reference(COMPATIBILITY)
    names = ("method", "backbone", "patch_negatives")
    assert {tuple(row.descriptors[name] for name in names): row.cells["davis_jf_mean"].text for row in rows} == {
        **{("MoBY", "ViT-Ti/16", ""): "54.1", ("MoBY", "Swin-T", ""): "50.8"},
        **{("MoBY+SelfPatch", "ViT-Ti/16", "no"): "58.4", ("MoBY+SelfPatch", "ViT-Ti/16", "yes"): "58.9"},
        ("MoBY+SelfPatch", "Swin-T", "yes"): "56.4",
        **{("DINO", "ViT-Ti/16", ""): "55.1", ("DINO", "ViT-Ti/8", ""): "61.6"},
        **{("DINO+SelfPatch", "ViT-Ti/16", "no"): "57.0", ("DINO+SelfPatch", "ViT-Ti/8", "no"): "65.8"},
    }


def test_frozen_holds_the_published_digits_of_each_protocol_in_a_column_of_its_own() -> None:
    rows = read_reference(FROZEN)
    found: dict[str, dict[str, list[str]]] = {column.heading: {} for column in FROZEN.columns}
    for row in rows:
        name = f"{row.descriptors['method']} {row.descriptors['backbone'].removeprefix('ViT-')}"
        for column in FROZEN.columns:
            if column.key in row.cells:
                found[column.heading].setdefault(name, []).append(row.cells[column.key].text)
    assert {heading: {name: " ".join(values) for name, values in of.items()} for heading, of in found.items()} == FROZEN_DIGITS
    assert all(row.source for row in rows)
    notes = {row.descriptors["method"]: row.note for row in rows}
    assert "inferred" in notes["DINOv3"]
    assert "assumed" in notes["CrIBo"]
    for left_out in ("DIP", "RADIO", "PE-Spatial", "TIPSv2"):
        assert left_out in FROZEN.caption
        assert left_out not in " ".join(notes)


def test_uper_net_has_two_published_values_and_every_row_says_where_it_is_published() -> None:
    assert [
        (row.descriptors["method"], {key: cell.text for key, cell in row.cells.items()}) for row in read_reference(UPERNET)
    ] == [
        ("DINO", {"upernet_miou": "42.3"}),
        ("DINO+SelfPatch", {"upernet_miou": "43.2"}),
    ]
    assert read_reference(DAVIS_2016) == []
    sources = [row.source for layout in LAYOUTS if layout != FROZEN for row in read_reference(layout)]
    assert len(sources) == 9 + 10 + 9 + 2
    assert all("CVPR 2022" in source or "alinlab/SelfPatch" in source for source in sources)


def test_retrieval_copy_detection_and_object_discovery_hold_the_published_digits() -> None:
    tasks = {
        "retrieval_dino": "retrieval",
        "copydays": "copy_detection",
        "lost": "object_discovery",
        "tokencut": "object_discovery",
    }
    protocols = {key: BENCHMARKS[key].protocol for key in tasks}
    layouts = layouts_for([make_result("a", task, protocol=protocols[key]) for key, task in tasks.items()])
    rows = {layout.name: read_reference(layout) for layout in layouts if layout.name in tasks}

    def column(name: str, key: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for row in rows[name]:
            label = f"{row.descriptors['method']} {row.descriptors['backbone']}"
            found[label] = f"{found.get(label, '')} {row.cells[key].text if key in row.cells else ''}".strip()
        return found

    # No source states image size or scales, so that no figure stands in the column of a protocol.
    for key in BENCHMARKS["retrieval_dino"].columns:
        assert not any(key.key in row.cells for row in rows["retrieval_dino"])
    assert column("retrieval_dino", "retrieval_unstated_hard_map") == {
        **{"DINO R50": "11.1", "DINOv2 ViT-S/14": "43.2", "DINOv2 ViT-B/14": "49.5"},
        **{"DINOv2 ViT-L/14": "54.0", "DINOv2 ViT-g/14": "52.3"},
    }
    assert [text for text in column("retrieval_dino", "retrieval_unstated_medium_map").values() if text] == ["35.4"]
    assert column("copydays", "copydays_strong_map") == {"DINO ViT-B/8": "0.858"}
    assert column("lost", "lost_corloc") == {
        **{"DINO ViT-S/16": "61.9 64.0 50.7", "DINO ViT-S/8": "55.5 57.0 49.5", "DINO ViT-B/16": "60.1 63.3 50.0"},
        **{"DINO R50": "36.8 42.7 26.5", "supervised R50": "33.5 39.1 25.5"},
    }
    assert column("tokencut", "tokencut_corloc") == {
        **{"DINO ViT-S/16": "68.8 72.1 58.8", "DINO ViT-S/8": "67.3 71.6 60.7", "DINO ViT-B/16": "68.8 72.4 59.0"}
    }
    sets = {row.descriptors["dataset"] for name in ("lost", "tokencut") for row in rows[name]}
    assert sets == {"PASCAL VOC 2007 trainval", "PASCAL VOC 2012 trainval", "COCO 20k train2014"}


def test_tracking_keeps_the_figures_of_each_protocol_in_its_own_column() -> None:
    rows = read_reference(TRACKING)
    published = {
        **{
            ("CropMAE", "ViT-S/16", data): figures
            for data, figures in (("ImageNet-1k", "60.1 33.2 43.5"), ("Kinetics-400", "58.6 33.7 42.9"))
        },
        ("T-CoRe", "ViT-S/16", "ImageNet-1k"): "64.1 39.7 46.2",
        ("T-CoRe", "ViT-S/16", "Kinetics-400"): "64.7 37.8 47.0",
        ("T-CoRe", "ViT-B/16", "Kinetics-400"): "66.4 38.9 47.1",
    }
    names = ("method", "backbone", "pretraining_data")
    videowalk = [row for row in rows if row.descriptors["method"] in ("CropMAE", "T-CoRe")]
    columns = ("davis_cropmae_jf_mean", "vip_cropmae_miou", "jhmdb_cropmae_pck1")
    assert {
        tuple(row.descriptors[name] for name in names): " ".join(row.cells[key].text for key in columns) for row in videowalk
    } == published
    dinov3 = {
        row.descriptors["backbone"]: row.cells["davis_dinov3_jf_mean"].text
        for row in rows
        if row.descriptors["method"] == "DINOv3"
    }
    assert list(dinov3.values()) == ["72.7", "75.5", "77.2", "79.9", "79.3", "79.7"]
    spatial = [row.cells["davis_jf_mean"].text for row in rows if row.descriptors["method"] == "PE-Spatial"]
    assert spatial == ["55.0", "57.5", "58.9", "60.6", "61.5"]
    filled = {key for row in rows for key in row.cells}
    assert filled == {*columns, "davis_dinov3_jf_mean", "davis_jf_mean"}
    assert all(
        sum(key in row.cells for key in ("davis_jf_mean", "davis_dinov3_jf_mean", "davis_cropmae_jf_mean")) == 1 for row in rows
    )
    assert all(row.source for row in rows)
    assert "is not stated" in TRACKING.caption


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("components", lambda text: text.replace("davis_jf_mean", "davis"), "its header must be part,method"),
        ("components", lambda text: text.replace(",57.0,", ",5 7.0,", 1), r"line 3, davis_jf_mean: '5 7.0' is not a number"),
        ("components", lambda text: text.replace("b,DINO", "b,b,DINO", 1), r"components.csv, line 3: 12 cells, wanted 11"),
        ("checkpoints", lambda text: text.replace("md5", "sha1", 1), "header must be name,method"),
        ("checkpoints", lambda text: text + text.splitlines()[1], "line 38: a second row called moco_v2_r50_800ep"),
        ("elsewhere", str, r"\.csv: no such reference table"),
    ],
)
def test_a_damaged_reference_is_refused(tmp_path: Path, name: str, edit: Callable[[str], str], message: str) -> None:
    for path in REFERENCE_FOLDER.glob(f"{name}.csv"):
        (tmp_path / path.name).write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_checkpoints(tmp_path / "checkpoints.csv") if name == "checkpoints" else read_reference(COMPONENTS, tmp_path)


@pytest.mark.parametrize("content", [b"method,\xff\n", b'method,"open\n', b"method," + b"long " * 50_000])
def test_a_reference_that_is_no_table_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoints.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"^\S*/checkpoints.csv: not a CSV file in UTF-8 \(.*\); restore it"):
        read_checkpoints(tmp_path / "checkpoints.csv")


def test_checkpoints_are_in_terms_of_what_exists_here() -> None:
    assert len(CHECKPOINTS) == 36
    for row in CHECKPOINTS.values():
        assert re.fullmatch(r"[a-z0-9_]+", row.name)
        assert row.source, row.name
        assert urlsplit(row.address).scheme == "https", row.name
        assert row.branch in backbones.layouts.LAYOUTS[row.format].branches, row.name
        assert re.fullmatch(r"([0-9a-f]{6,32})?", row.md5), row.name
        assert Path(row.file_name).name == row.file_name != f"{row.name}.safetensors"
    assert len({row.file_name for row in CHECKPOINTS.values()}) == len(CHECKPOINTS)
    published = {(row.descriptors["method"], row.descriptors["backbone"]) for row in read_reference(MAIN)}
    assert published <= {(row.method, row.backbone) for row in CHECKPOINTS.values()}
    row = CHECKPOINTS["moco_v3_vit_small_300ep"]  # an unusual number of heads is the same architecture
    names = ("ViT-S/16", "ViT-S/16, 12 heads", "ViT-S/8", "Swin-T")
    assert [row.is_architecture(name) for name in names] == [True, True, False, False]


def test_digests_licences_and_addresses_written_down_a_second_time() -> None:
    rows = CHECKPOINTS.values()
    assert {row.md5 for row in rows if row.md5} == {"a04e12f8", "59fd9945", "8cad7c", "b8b06e"}
    non_commercial = {row.method for row in rows if row.licence.startswith("CC-BY-NC")}
    assert non_commercial == {"MoCo-v2", "SwAV", "ReSim", "MoCo-v3", "MAE"}
    others = {(row.method, row.licence) for row in rows if row.method in ("DenseCL", "DINOv3")}
    assert others == {("DenseCL", "GPL-3.0"), ("DINOv3", "DINOv3 License")}
    # The page of a file on Google Drive is not the file.
    address = CHECKPOINTS["selfpatch_vit_small_200ep"].download_address
    assert address.startswith("https://drive.usercontent.google.com/download?id=19eeQrK-nl4B9ksFQ_QnewGHVKYDQF4Yw&")
    assert CHECKPOINTS["moco_v2_r50_800ep"].download_address == CHECKPOINTS["moco_v2_r50_800ep"].address
