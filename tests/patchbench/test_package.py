"""The package as an installation: its import, its requirements, and the notebook that shows it."""

import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import REPOSITORY
from tests.processes import ENVIRONMENT


def _python(code: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    given = {**ENVIRONMENT, **environment}
    program = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(program, cwd=folder, env=given, capture_output=True, text=True, check=False, timeout=100)


def test_the_import_is_quick_and_loads_no_torch(tmp_path: Path) -> None:
    code = """
        import sys, time
        start = time.perf_counter()
        import patchbench
        print(time.perf_counter() - start, sorted({"torch", "numpy", "tyro", "lightning", "transformers"} & set(sys.modules)))
    """
    seconds, loaded = _python(code, tmp_path).stdout.split(maxsplit=1)
    assert float(seconds) < 0.3
    assert loaded == "[]\n"


def test_a_package_of_the_callers_that_hides_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common/__init__.py").touch()
    finished = _python("import patchbench", tmp_path)
    message = f"ImportError: patchbench needs its own package `common`, but `import common` gives {tmp_path}/common/__init__.py"
    assert message in finished.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(REPOSITORY / "docs/python.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # which would grow old in the file
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "J&F-Mean" in printed
    assert (tmp_path / "results/main.csv").is_file()


def test_an_installation_asks_for_what_the_pinned_environment_has() -> None:
    """Every direct dependency is in both lists, and the pins are within the bounds."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    bounds = {requirement.name.lower(): requirement for requirement in map(Requirement, listed)}
    lines = (REPOSITORY / "requirements.in").read_text().splitlines()
    direct = {Requirement(line).name.lower() for line in lines if line and not line.startswith("#")}
    assert bounds.keys() == direct
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line[:1].isalpha()]
    assert direct <= {pin.name.lower() for pin in pins}
    for pin in pins:
        version = str(pin.specifier).removeprefix("==")
        assert pin.name.lower() not in bounds or bounds[pin.name.lower()].specifier.contains(version), pin
