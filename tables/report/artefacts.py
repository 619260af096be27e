"""The files that results name, found below the folder of runs and nowhere else."""

from pathlib import Path

from tables.collect import Measurement


class ArtefactError(ValueError):
    """An artefact that the report cannot show; the text says why."""


def artefact_path(measurement: Measurement, relative: str) -> Path:
    """Where an artefact lies.

    Args:
        measurement: Whose.
        relative: As the result states it.

    Raises:
        ArtefactError: If it is missing or outside its result's folder, from which a page that people pass on must take nothing.
    """
    folder = measurement.folder.resolve()
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder):
        raise ArtefactError("lies outside its result's folder")
    if not path.exists():
        raise ArtefactError("is missing")
    return path


def page_path(measurement: Measurement, relative: str) -> str:
    """What the page calls an artefact: its path below the folder of runs."""
    return f"{measurement.path.rpartition('/')[0]}/{relative}".lstrip("/")
