"""Writes the report of a pretraining run: tables, figures and one page.

    python -m trainers.report --workdir=W

It reads what the stages in W have recorded, also of those that still run, and writes
W/report/report.html, report.md, results.json and the figures as PNG files. It takes seconds and
may be run at any time.
"""

import dataclasses

from absl import flags

from trainers import errors, reports


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Settings of the binary.

    Args:
        workdir: folder of the run.

    Raises:
        UserError: no workdir.
    """

    workdir: str

    def __post_init__(self):
        if not self.workdir:
            raise errors.UserError(
                "Expected --workdir to name the folder of a run. "
                f"Received: workdir={self.workdir!r}. Add --workdir=FOLDER."
            )


def define_flags() -> None:
    """Declares this binary's flags; once a process."""
    flags.DEFINE_string("workdir", None, "Folder of the run, as given to trainers.pretrain.")


def main(argv):
    """Writes the report and prints where it lies."""
    del argv
    config = ReportConfig(workdir=flags.FLAGS.workdir)
    print(f"Report: {reports.write_report(config.workdir)}")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
