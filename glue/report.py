"""Prints and writes the report of fine-tunings: Tables 5, 6 and 7, Figure 3, and what is noise.

    python -m glue.report --workdir=G [--pretrained=W]

It reads what glue.finetune has recorded in G, also while it still runs, and for Table 6 what the
pretraining run in W has cost. It writes G/report/report.html, report.md, results.json, tables.tex
and figure3.png; with many repeats that takes some seconds.
"""

import dataclasses

from absl import flags

from glue.reports import glue_page
from trainers import errors, programs
from trainers.reports import tables


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Settings of the binary.

    Args:
        workdir: folder of the fine-tunings.
        pretrained: folder of the pretraining run, or None.

    Raises:
        UserError: no workdir.
    """

    workdir: str
    pretrained: str | None = None

    def __post_init__(self):
        if not self.workdir:
            raise errors.UserError(
                "Expected --workdir to name the folder of fine-tunings. "
                f"Received: workdir={self.workdir!r}. Add --workdir=FOLDER."
            )


def define_flags() -> None:
    """Declares this binary's flags; once a process."""
    flags.DEFINE_string("workdir", None, "Folder of the fine-tunings, as given to glue.finetune.")
    flags.DEFINE_string("pretrained", None, "Folder of the pretraining run, for Table 6.")


def main(argv):
    """Writes the report, and prints its tables and where it lies."""
    del argv
    config = ReportConfig(flags.FLAGS.workdir, flags.FLAGS.pretrained)
    path, report = glue_page.write_report(config.workdir, config.pretrained)
    for table in report.blocks(tables.Table):
        print(tables.render(table, "md"))
    print(f"Report: {path}")


if __name__ == "__main__":
    define_flags()
    programs.run(main)
