import shutil
from pathlib import Path

import pytest

from tests.tools.data_doctor.conftest import draw_photo
from tools.data_doctor.image_files import Damage, decode_photo, look
from tools.data_doctor.survey import survey


def test_several_processes_see_what_one_sees(tmp_path: Path) -> None:
    draw_photo(tmp_path / "0.jpg", 0)
    paths = [tmp_path / "0.jpg"]
    for number in range(1, 600):
        paths.append(shutil.copy(paths[0], tmp_path / f"{number}.jpg"))
    content = bytearray(paths[0].read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    paths[400].write_bytes(content)
    facts = survey(paths, decode_photo, 2, "test")
    assert [fact.path for fact in facts] == paths
    assert [index for index, fact in enumerate(facts) if fact.damage is Damage.CORRUPT] == [400]
    assert survey(paths, decode_photo, 1, "test") == facts


def test_a_slow_survey_shows_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_photo(tmp_path / "0.jpg", 0)
    monkeypatch.setattr("tools.data_doctor.survey._SHOWN_AFTER_S", 0.0)
    survey([tmp_path / "0.jpg"] * 3, look, 1, "COCO 2017 val2017")
    assert "COCO 2017 val2017" in capsys.readouterr().err
