"""Writes a report into a new folder and swaps it in, so that no reader sees half of one."""

import shutil
from pathlib import Path

from trainers.errors import UserError, os_errors
from trainers.files import locked, read_json, replacing_folder
from trainers.reports import page
from trainers.reports.pictures import Picture
from trainers.runs import history, locks
from trainers.runs.workdir import (
    MARKDOWN_FILE,
    REPORT_FILE,
    REPORT_FOLDER,
    RESULTS_FILE,
    RUN_FILE,
)

_TEXTS = {REPORT_FILE: page.to_html, MARKDOWN_FILE: page.to_markdown, RESULTS_FILE: page.to_json}


def write_report(workdir, kernels=None, steps=None):
    """Reads a run and writes its report: report.html (one file), report.md, results.json and PNGs.

    Args:
        workdir: folder of the run. The report goes to its `report/`; other files in it stay.
        kernels, steps: of the heat maps, as for `heat_maps`.

    Returns:
        Path of report.html.

    Raises:
        UserError: the run cannot be read, has no such kernels or steps, or a report of another
            version lies there; nothing is changed then.
    """
    workdir = Path(workdir)
    return write_files(page.pretraining_report(history.read_run(workdir), kernels, steps), workdir)


def write_files(report, workdir, texts=None):
    """Writes a report as `write_report` does, with further texts: {name: function of it}."""
    workdir = Path(workdir)
    target = workdir / REPORT_FOLDER
    _check_replaceable(target, report.kind)
    with locks.run_files(workdir):
        _write(report, target, {**_TEXTS, **(texts or {})})
    return target / REPORT_FILE


def write_to(report, folder):
    """Writes a report into a folder of its own: a new or empty one, or that of an earlier report.

    Returns:
        Path of report.html.

    Raises:
        UserError: the folder holds something else; nothing is changed then.
    """
    target = Path(folder)
    check_output(target, report.kind)
    with locked(target.parent / f".{target.name}.lock"):
        _write(report, target, _TEXTS)
    return target / REPORT_FILE


def check_output(folder, kind):
    """Raises a `UserError` unless a report of a kind may be written into a folder by `write_to`."""
    target = Path(folder)
    _check_replaceable(target, kind)
    if kind != page.RUN and target.name == REPORT_FOLDER and (target.parent / RUN_FILE).exists():
        raise UserError(
            f"--output other than the folder of a run's own report for one of the kind {kind!r}",
            f"output={str(target)!r}",
            "Choose another folder",
        )
    if target.exists() and any(target.iterdir()) and not (target / RESULTS_FILE).exists():
        raise UserError(
            f"--output to be a new folder, or one with a report ({RESULTS_FILE})",
            f"output={str(target)!r}, which holds something else",
            "Choose another folder",
        )


def _write(report, target, texts):
    do = "Make room or give write permission, and make the report again"
    with os_errors("to write the report", target, do), replacing_folder(target) as new:
        for name, form in texts.items():
            (new / name).write_text(form(report), encoding="utf-8")
        for picture in report.blocks(Picture):
            (new / f"{picture.key}.png").write_bytes(picture.png())
        _keep_others(target, new, texts)


def _check_replaceable(target, kind):
    """Refuses what is no folder, and results of another kind or another version of this code."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} to be a folder for the report", "a file", "Move it away")
    results = target / RESULTS_FILE
    if not results.exists():
        return
    try:
        content = read_json(results)
    except UserError:
        content = {"format": "unreadable"}
    version, other = content.get("format"), content.get("kind", page.RUN)
    if version != history.FORMAT:
        raise UserError(
            f"format {history.FORMAT} in {results}, which this report would replace",
            f"format={version!r}, of another version",
            f"Move {target} away first",
        )
    if other != kind:
        raise UserError(
            f"a report of the kind {kind!r} in {target}, which this one would replace",
            f"one of the kind {other!r}",
            "Choose another folder, or move that one away",
        )


def _keep_others(target, new, texts):
    """Copies what users have put beside the old report, without its pictures."""
    for item in target.iterdir() if target.is_dir() else ():
        if item.suffix == ".png" or item.name in texts:
            continue
        if item.is_dir():
            shutil.copytree(item, new / item.name, symlinks=True)
        else:
            shutil.copy2(item, new / item.name, follow_symlinks=False)
