"""Lets faults happen to programs at points drawn from a seed, and says what was lost: nothing.

python -m tests.faults --points=200 --minutes=60 --seed=0

One line per point; then a table, fault by program: points survived of those tried, and bytes lost,
which are those of files of the finished program (weights, slots, curves, metrics, settings, what
TensorBoard shows) that differ from one to which nothing happened. Exit code 1 unless all survived.
cases.py has the programs and the faults. About ten seconds per point on two cores.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import tempfile
import time
import traceback

from tests.faults import hosts
from tests.faults.cases import FAULTS, PROGRAMS, make_inputs, pairs
from tests.faults.harness import Harness, Outcome
from tests.faults.zygote import Zygote
from trainers import programs
from trainers.errors import UserError
from trainers.programs import check_options, option


@dataclasses.dataclass(frozen=True)
class FaultsConfig:
    """Number and seed of the points; checks itself."""

    points: int = option(200, "Number of the last point.", at_least=1, group="Faults")
    first: int = option(1, "Number of the first point, to continue a table.", at_least=1)
    minutes: float = option(60.0, "Time after which no other point is tried.", above=0)
    seed: int = option(0, "Seed that the points are drawn from.", at_least=0)
    programs: tuple[str, ...] = option(
        (), "Parts of programs' names; without it all programs.", distinct=True
    )
    faults: tuple[str, ...] = option((), "Faults; without it all.", choices=tuple(FAULTS))

    def __post_init__(self):
        check_options(self)
        if self.first > self.points:
            raise UserError(
                "--first up to --points, the number of the last point",
                f"first={self.first}, points={self.points}",
                f"Raise --points, to {self.first} for one point",
            )
        if not self.cells:
            raise UserError(
                f"a part of a program's name: of {', '.join(PROGRAMS)}",
                f"programs={','.join(self.programs)!r}",
                "Name others, or leave it out",
            )

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Pairs of a fault and a program that points are drawn from."""
        return [pair for pair in pairs() if self.takes(*pair)]

    def takes(self, fault: str, program: str) -> bool:
        """Returns whether a fault of a program is tried."""
        named = not self.programs or any(part in program for part in self.programs)
        return named and (not self.faults or fault in self.faults)


@contextlib.contextmanager
def _bucket():
    """A server of object storage, which the environment names; gives the URL of a bucket."""
    import fsspec

    from tests.trainers.storage import servers

    with servers.s3() as (_, environment):
        os.environ.update(environment)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(servers.BUCKET)
        yield f"s3://{servers.BUCKET}"


def main(config: FaultsConfig) -> int:
    """Lets the faults happen, compares, prints."""
    began = time.monotonic()
    cells = config.cells
    random.Random(config.seed).shuffle(cells)
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    harnesses: dict[str, Harness] = {}
    with contextlib.ExitStack() as stack:
        home = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        in_bucket = any(PROGRAMS[program].in_bucket for _, program in cells)
        bucket = stack.enter_context(_bucket()) if in_bucket else ""
        zygotes = {"tensorflow": stack.enter_context(Zygote(eager=True))}
        if any(PROGRAMS[program].backend == "jax" for _, program in cells):
            cached = hosts.compiled_in(home / "compiled")
            zygotes["jax"] = stack.enter_context(Zygote(backend="jax", variables=cached))
        inputs = home / "inputs"
        make_inputs(inputs, zygotes["tensorflow"])
        for number in range(config.first - 1, config.points):
            # Each point has draws of its own, so that it can be repeated alone.
            rng = random.Random(f"{config.seed} {number}")
            if outcomes and time.monotonic() - began > 60 * config.minutes:
                break
            fault, program = cells[number % len(cells)]
            try:
                if program not in harnesses:
                    folder, row = home / f"{number} {program}", PROGRAMS[program]
                    folder.mkdir()
                    harnesses[program] = Harness(zygotes[row.backend], folder, row, inputs, bucket)
                outcome = harnesses[program].fail(str(number), fault, rng, number)
            except Exception as error:  # one point, while hours of others are to come
                traceback.print_exc()
                outcome = Outcome((), {}, f"in the harness: {error!r:.300}")
            outcomes.setdefault((fault, program), []).append(outcome)
            where = "; then ".join(map(str, filter(None, outcome.points)))
            verdict = "survived" if outcome.survived else f"LOST ({outcome.fault or outcome.lost})"
            print(f"{number + 1:3d}. {verdict}: {fault}, {program}: {where}", flush=True)
    print(table(outcomes), f"{time.monotonic() - began:.0f} s")
    return 0 if all(o.survived for cell in outcomes.values() for o in cell) else 1


def table(outcomes: dict[tuple[str, str], list[Outcome]]) -> str:
    """Returns the table of what happened, fault by program, and its sum."""
    rows = [("", *FAULTS, "bytes lost")]
    for program in PROGRAMS:
        cells = [outcomes.get((fault, program), []) for fault in FAULTS]
        shown = [f"{sum(o.survived for o in cell)}/{len(cell)}" if cell else "" for cell in cells]
        rows.append((program, *shown, f"{_bytes(sum(cells, [])):,}"))
    width = max(len(row[0]) for row in rows)
    lines = [f"{row[0]:{width}}" + "".join(f"{cell:>16}" for cell in row[1:]) for row in rows]
    every = sum(outcomes.values(), [])
    survived = sum(outcome.survived for outcome in every)
    total = f"points tried: {len(every)}, survived: {survived}, bytes lost: {_bytes(every):,}"
    return "\n".join((*lines, total))


def _bytes(outcomes: list[Outcome]) -> int:
    return sum(sum(outcome.lost.values()) for outcome in outcomes)


if __name__ == "__main__":
    programs.run(main, FaultsConfig)
