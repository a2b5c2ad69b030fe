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

from absl import flags

from trainers import errors, programs, reports


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Settings of the binary.

    Args:
        workdir: folder of the run.
        kernels: paths of the weights that heat maps show; None for the usual ones.
        steps: saved steps that they show; None spreads over all of them.

    Raises:
        UserError: no workdir, or a step that is no number.
    """

    workdir: str
    kernels: tuple[str, ...] | None = None
    steps: tuple[int, ...] | None = None

    def __post_init__(self):
        if not self.workdir:
            raise errors.UserError(
                "Expected --workdir to name the folder of a run. "
                f"Received: workdir={self.workdir!r}. Add --workdir=FOLDER."
            )
        try:
            steps = (
                None if self.steps is None else tuple(sorted({int(step) for step in self.steps}))
            )
        except ValueError:
            raise errors.UserError(
                "Expected --heatmap_steps to be a comma-separated list of steps. "
                f"Received: heatmap_steps={','.join(self.steps)!r}. Write for instance 500,1000."
            ) from None
        object.__setattr__(self, "steps", steps)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares this binary's flags in `values`."""
    for define, name, text in (
        (flags.DEFINE_string, "workdir", "Folder of the run, as given to trainers.pretrain."),
        (flags.DEFINE_list, "kernels", "Paths of the weights that heat maps of fusions show."),
        (flags.DEFINE_list, "heatmap_steps", "Saved steps that heat maps show."),
    ):
        define(name, None, text, flag_values=values)


def main(argv):
    """Writes the report and prints where it lies."""
    del argv
    values = flags.FLAGS
    config = ReportConfig(values.workdir, values.kernels, values.heatmap_steps)
    print(f"Report: {reports.write_report(config.workdir, config.kernels, config.steps)}")


if __name__ == "__main__":
    define_flags()
    programs.run(main)
