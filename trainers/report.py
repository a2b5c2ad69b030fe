"""Writes the report of a pretraining run, or of several side by side: tables, figures and one page.

    python -m trainers.report --workdir=W

It reads what the stages in W have recorded, also of those that still run, and writes
W/report/report.html, report.md, results.json and the figures as PNG files. It takes seconds and
may be run at any time. Heat maps show two kernels of every fused stage; for others, or at certain
saved steps:

    python -m trainers.report --workdir=W --kernels=decoder/block_1/cross_attention/key/kernel \\
        --heatmap_steps=1000,2000

Several runs are compared on one page, with their curves over compute, the settings in which they
differ and what they reached. It is written beside the first of them, into runs/comparison/ here:

    python -m trainers.report --workdir=runs/a,runs/b,runs/c

With --watch the report is rewritten while the runs are going, and the page reads itself again in
the browser. That ends when all stages that were asked for are finished, or with Ctrl-C.
"""

import dataclasses
from pathlib import Path

from trainers import programs, stopping
from trainers.errors import UserError
from trainers.programs import check_options, option
from trainers.reports import page, several, watch, write
from trainers.runs import history
from trainers.storage import Kind, is_copy

COMPARISON_FOLDER = "comparison"


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Folders and heat maps of a report; checks itself."""

    workdir: tuple[str, ...] = option(
        (),
        "Folder of the run, as given to trainers.pretrain; several are compared.",
        distinct=True,
        required="FOLDER[,FOLDER]",
        group="Report",
        place=Kind.UPDATE,
    )
    output: str | None = option(
        None,
        "Folder of the report; without it report/ in the folder of the run, or comparison/ beside "
        "the first of several.",
        place=Kind.UPDATE,
    )
    watch: int | None = option(
        None,
        "Rewrite it while runs are going, looking every so many seconds; 30 without a number.",
        bare="30",
        at_least=1,
    )
    kernels: tuple[str, ...] | None = option(
        None, "Paths of the weights that heat maps show; without it two of every fused stage."
    )
    steps: tuple[int, ...] | None = option(
        None,
        "Saved steps that heat maps show; without it they are spread over all.",
        flag="heatmap_steps",
        at_least=0,
    )

    def __post_init__(self):
        check_options(self)
        resolved = [Path(workdir).resolve() for workdir in self.workdir]
        if len(set(resolved)) < len(resolved):
            received = f"workdir={','.join(self.workdir)!r}, which has one twice"
            raise UserError("--workdir to name different folders", received, "Leave one out")
        if self.is_comparison and (self.kernels or self.steps):
            raise UserError(
                "--kernels and --heatmap_steps with one --workdir",
                f"workdir={','.join(self.workdir)!r}",
                "Leave them out, or name one folder",
            )
        if self.is_comparison and not self.output and is_copy(self.workdir[0]):
            raise UserError(
                "--output with several runs in object storage",
                f"workdir={','.join(self.workdir)!r}",
                "Add --output=FOLDER",
            )
        if self.watch and any(map(is_copy, self.workdir)):
            raise UserError(
                "--watch with folders of this machine",
                f"workdir={','.join(self.workdir)!r}, a copy",
                "Leave it out and give the command again from time to time",
            )

    @property
    def is_comparison(self) -> bool:
        """True if several runs are shown side by side."""
        return len(self.workdir) > 1

    @property
    def folder(self) -> Path | None:
        """Folder of the report; None for that of the run."""
        if self.output or not self.is_comparison:
            return Path(self.output).resolve() if self.output else None
        return Path(self.workdir[0]).resolve().parent / COMPARISON_FOLDER


@stopping.handled()
def main(config: ReportConfig) -> None:
    """Writes the report, once or as long as the runs are going, and prints where it lies."""
    steps = config.steps and sorted(set(config.steps))

    def make(runs):
        if config.is_comparison:
            return several.comparison(runs)
        return page.pretraining_report(runs[0], config.kernels, steps)

    def put(report):
        if config.folder is None:
            return write.write_files(report, config.workdir[0])
        return write.write_to(report, config.folder)

    if config.folder is not None:
        write.check_output(config.folder, several.KIND if config.is_comparison else page.RUN)
    if config.watch is None:
        print(f"Report: {put(make(list(map(history.read_run, config.workdir))))}")
    else:
        watch.watch(config.workdir, make, put, config.watch)


if __name__ == "__main__":
    programs.run(main, ReportConfig)
