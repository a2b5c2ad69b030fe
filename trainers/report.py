"""Writes the report of a pretraining run: tables, figures and one page.

    python -m trainers.report --workdir=W

It reads what the stages in W have recorded, also of those that still run, and writes
W/report/report.html, report.md, results.json and the figures as PNG files. It takes seconds and
may be run at any time. Heat maps show two kernels of every fused stage; for others, or at certain
saved steps:

    python -m trainers.report --workdir=W --kernels=decoder/block_1/cross_attention/key/kernel \\
        --heatmap_steps=1000,2000
"""

import dataclasses

from trainers import programs, reports
from trainers.programs import check_options, option


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Folder and heat maps of a report; checks itself."""

    workdir: str = option(
        "", "Folder of the run, as given to trainers.pretrain.", required="FOLDER", group="Report"
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


def main(config: ReportConfig) -> None:
    """Writes the report, and prints where it lies."""
    steps = config.steps and sorted(set(config.steps))
    print(f"Report: {reports.write_report(config.workdir, config.kernels, steps)}")


if __name__ == "__main__":
    programs.run(main, ReportConfig)
