"""Two annotated sequences of DAVIS-2017."""

import shutil
from pathlib import Path

import pytest

from backbones.spec import ViTSpec
from eval.davis.config import DavisConfig
from eval.davis.data import DavisSplit, find_sequences
from eval.davis.task import evaluate
from eval.propagation.measures import score_sequences
from eval.propagation.protocol import ProtocolName
from tests.toy import write_toy_backbone

pytestmark = pytest.mark.data


def test_annotations_score_full_marks(real_data_dir: Path) -> None:
    split = DavisSplit(root=real_data_dir / "DAVIS")
    names = [sequence.name for sequence in find_sequences(split, all_masks=True)]
    overall = score_sequences(names[:1], split.masks_folder, split.masks_folder).overall
    assert overall["J-Mean"] == overall["F-Mean"] == 1


@pytest.mark.parametrize(("patch_size", "protocol"), [(16, "dino"), (14, "dinov3")])
def test_a_few_frames_end_to_end(patch_size: int, protocol: ProtocolName, real_data_dir: Path, tmp_path: Path) -> None:
    whole = find_sequences(DavisSplit(root=real_data_dir / "DAVIS"), all_masks=True)[0]
    root = tmp_path / "DAVIS"
    for kind, files in (("JPEGImages", whole.frames), ("Annotations", whole.masks)):
        folder = root / kind / "480p" / whole.name
        folder.mkdir(parents=True)
        for path in files[:6]:
            shutil.copy(path, folder)
    spec = ViTSpec(
        embed_dim=64, depth=2, num_heads=2, patch_size=patch_size, image_size=224, class_token=False, final_norm=False
    )
    paths = {"backbone": write_toy_backbone(tmp_path, spec), "data": root, "output": tmp_path / "out"}
    short_side = None if protocol == "dino" else 480  # 960 would take four times as long
    config = DavisConfig(**paths, protocol=protocol, short_side=short_side, split="all", device="cpu", jobs=1, overlays=True)
    result = evaluate(config)
    assert result.protocol.deviations == ({} if protocol == "dino" else {"short_side": [960, 480]})
    # Even random features follow a swan over six frames.
    assert result.metrics["J-Mean"].value > 60
    assert len(list((tmp_path / "out/overlays" / whole.name).iterdir())) == 6
