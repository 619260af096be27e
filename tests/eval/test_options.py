"""The options of the tasks, as `--help` shows them."""

import re

import pytest

from common.cli import parse
from eval.tasks import TASKS


@pytest.mark.parametrize("task", TASKS)
def test_every_option_says_what_it_is(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(TASKS[task].config, ["--help"], f"python -m eval {task}", TASKS[task].summary)
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╰─]", "", capsys.readouterr().out).split())
    parts = re.split(r" (?=--[a-z-]+ (?:[A-Z{\[]))", text)[1:]
    assert len(parts) > 5
    for part in parts:
        sentence = re.sub(r"^--[a-z-]+|\{[^}]*\}|\((?:default|required).*", "", part)
        assert len(re.findall(r"[a-z]{2,}", sentence)) > 1, part
