"""Kills pretraining runs at points drawn from a seed, and says what was lost: nothing.

python -m tests.faults --points=30 --seed=0

One line per point; then points tried, points survived, and bytes lost: those of files of the
finished run (weights, slots, curves, metrics, settings, what TensorBoard shows) that differ from a
run that was never killed. Exit code 1 unless all survived.
About ten seconds per point on two cores.
"""

import dataclasses
import pathlib
import tempfile
import time

from tests.faults.harness import Harness, plan
from tests.faults.zygote import Zygote
from trainers import programs
from trainers.programs import check_options, option


@dataclasses.dataclass(frozen=True)
class FaultsConfig:
    """Number and seed of the runs that are killed; checks itself."""

    points: int = option(30, "Number of runs that are killed.", at_least=1, group="Faults")
    seed: int = option(0, "Seed that the points are drawn from.", at_least=0)

    def __post_init__(self):
        check_options(self)


def main(config: FaultsConfig) -> int:
    """Kills, compares, prints."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Zygote() as zygote:
        harness = Harness(zygote, pathlib.Path(folder))
        outcomes = []
        for kills in plan(harness.record(), config.points, config.seed):
            outcome = harness.kill(f"killed_{len(outcomes)}", kills)
            outcomes.append(outcome)
            where = "; then ".join(map(str, outcome.killed))
            verdict = "survived" if outcome.survived else f"LOST ({outcome.fault or outcome.lost})"
            print(f"{len(outcomes):3d}. {verdict}: killed {where}", flush=True)
    survived = sum(outcome.survived for outcome in outcomes)
    print(
        f"points tried: {len(outcomes)}, survived: {survived}, "
        f"kills: {sum(len(outcome.killed) for outcome in outcomes)}, "
        f"bytes lost: {sum(sum(outcome.lost.values()) for outcome in outcomes)} "
        f"({time.monotonic() - began:.0f} s)"
    )
    return 0 if survived == len(outcomes) else 1


if __name__ == "__main__":
    programs.run(main, FaultsConfig)
