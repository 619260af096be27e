"""CITATION.cff, which GitHub, Zenodo and citation managers read."""

import tomllib

import yaml

from tests.conftest import REPOSITORY


def test_the_citation_is_complete_and_of_this_version() -> None:
    content = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # What the schema of 1.2.0 requires, https://github.com/citation-file-format/citation-file-format.
    assert {"cff-version", "message", "title", "authors"} <= content.keys()
    assert (content["cff-version"], content["type"]) == ("1.2.0", "software")
    assert (content["version"], content["license"]) == (project["version"], project["license"])
    for reference in content["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert all({"family-names", "given-names"} <= author.keys() for author in reference["authors"])
