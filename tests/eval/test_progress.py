import logging

import pytest

from eval import progress
from eval.progress import Progress


@pytest.mark.parametrize(("disable", "is_told"), [(None, True), (True, False)])
def test_after_its_first_minute_a_bar_tells_the_log_how_long_the_whole_takes(
    disable: bool | None, is_told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO)
    with Progress(total=110, initial=10, unit="frame", desc="propagation", disable=disable) as bar:
        for second in (30, 59.9):
            now[0] = 100 + second
            bar.update(2)
        assert not caplog.messages, "too early to tell"
        now[0] = 160
        bar.update(1)
        now[0] = 200
        bar.update(1)
    expected = ["propagation: 100 frames take about 20 min 00 s on this machine (5 took 1 min 00 s)"]
    assert caplog.messages == (expected if is_told else [])
