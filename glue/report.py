"""Prints and writes the report of fine-tunings: Tables 5, 6 and 7, Figure 3, and their noise.

    python -m glue.report --workdir=G [--pretrained=W]

It reads what glue.finetune has recorded in G, also while it still runs, and for Table 6 the cost of
the pretraining run in W. It writes G/report/report.html, report.md, results.json, tables.tex and
figure3.png; with many repeats that takes some seconds.
"""

import dataclasses

from glue.reports import glue_page
from trainers import programs
from trainers.programs import check_options, option
from trainers.reports import tables
from trainers.storage import Kind


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """The settings of `glue.report`; checks itself."""

    workdir: str = option(
        "",
        "Folder of the fine-tunings, as given to glue.finetune.",
        required="FOLDER",
        place=Kind.UPDATE,
    )
    pretrained: str | None = option(
        None, "Folder of the pretraining run, for Table 6.", place=Kind.READ
    )

    def __post_init__(self):
        check_options(self)


def main(config: ReportConfig) -> None:
    """Writes the report, and prints its tables and the path of its page."""
    path, report = glue_page.write_report(config.workdir, config.pretrained)
    for table in report.blocks(tables.Table):
        print(tables.render(table, "md"))
    print(f"Report: {path}")


if __name__ == "__main__":
    programs.run(main, ReportConfig)
