"""Examines every dataset that a config asks for."""

import dataclasses
from typing import Any

from tools.data_doctor import ade, coco, davis, imagenet
from tools.data_doctor.config import TASKS, DoctorConfig
from tools.data_doctor.report import DatasetReport, DoctorReport

_DATASETS = {"davis": davis, "detection": coco, "segmentation": ade, "classification": imagenet}

_ORDER = ("missing", "misplaced", "misnamed", "damaged", "wrong", "note")


def examine(config: DoctorConfig) -> DoctorReport:
    """Examine what the config asks for; of the rest, see only whether it is there.

    Raises:
        OSError: If a folder cannot be read.
    """
    asked = config.asked_tasks
    return DoctorReport(
        data=config.data,
        deep=config.deep,
        datasets=tuple(_examine_one(config, task, task in asked, not asked or task in asked) for task in TASKS),
    )


def _examine_one(config: DoctorConfig, task: str, asked: bool, examined: bool) -> DatasetReport:
    if examined:
        report = _DATASETS[task].examine(config.data, config.deep, config.jobs)
        report.findings.sort(key=lambda finding: _ORDER.index(finding.kind))
    else:
        report = _DATASETS[task].describe(config.data)
        report.present = report.folder.is_dir()
    report.asked, report.examined = asked, examined
    return report


def to_dict(report: DoctorReport) -> dict[str, Any]:
    """The report for programs: JSON-ready, with every name."""
    datasets = []
    for dataset in report.datasets:
        entry = dataclasses.asdict(dataset)
        entry.update(data=str(dataset.data), folder=str(dataset.folder))
        for download in entry["downloads"]:
            download["into"] = str(download["into"])
        entry["state"] = dataset.state if dataset.examined else "not examined"
        entry["usable"] = dataset.is_usable if dataset.examined else None
        for finding, written in zip(dataset.findings, entry["findings"], strict=True):
            written["problem"] = finding.is_problem
            written["count"] = len(finding.names) or 1
        datasets.append(entry)
    return {"data": str(report.data), "deep": report.deep, "healthy": report.is_healthy, "datasets": datasets}
