"""The order in which the stages of a plan are trained: one after the other, or side by side.

Stages that do not need each other may train at the same time, each on a part of the devices that
is its own; a stage that comes alone has all of them. A sweep comes first, and other stages are
trained with what it finds.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from trainers.engines.devices import EngineFactory, MeshEngines
from trainers.errors import UserError
from trainers.plans import tuning
from trainers.plans.graph import Stage
from trainers.pretraining.outlook import duration
from trainers.pretraining.stage import Run, run_stage
from trainers.runs import planned, sweep


def waves(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Groups stages so that those of a group need only earlier groups, or stages that are not here.

    Example:
        >>> [[s.name for s in wave] for wave in waves(stages_of(["fusion_property"]))]
        [['small_0', 'small_1'], ['fusion_property']]
    """
    depth: dict[str, int] = {}
    groups: list[list[Stage]] = []
    for stage in stages:
        depth[stage.name] = 1 + max((depth.get(name, -1) for name in stage.needs), default=-1)
        groups += [[]] if depth[stage.name] == len(groups) else []
        groups[depth[stage.name]].append(stage)
    return groups


def train_side_by_side(
    stages: Sequence[Stage],
    engines: MeshEngines,
    batch_size: int,
    train: Callable[[Stage, EngineFactory], None],
) -> None:
    """Trains stages that do not need each other at the same time, on parts of the mesh.

    A stage that fails does not end those beside it; its error is raised when they have ended.

    Args:
        stages: stages to train, sources before what is fused from them.
        engines: engines of the whole mesh.
        batch_size: sequences per batch.
        train: trains one stage with engines, in a thread of its own.
    """
    for wave in waves(stages):
        if len(wave) == 1:
            train(wave[0], engines)
            continue
        parts = engines.parts(len(wave), batch_size)
        for start in range(0, len(wave), len(parts)):
            together = wave[start : start + len(parts)]
            with ThreadPoolExecutor(len(together), thread_name_prefix="stage") as pool:
                pairs = zip(together, parts, strict=False)
                running = [pool.submit(train, stage, part) for stage, part in pairs]
            for stage in running:
                stage.result()


def tune(run: Run) -> tuple[Run, list[Stage]]:
    """Trains the sweep, if it was asked for, arm by arm.

    Returns:
        The run with what was found, and the stages that are still to be trained. Each arm, too,
        starts from stages that have the learning rates that were found for them.
    """
    config = run.config
    plan = next((plan for plan in config.plans if plan.name == tuning.NAME), None)
    rest = list(config.wanted)
    for arm in plan.facts["arms"] if plan else ():
        needed = {stage.name for stage in tuning.arm_stages(config.stages, plan.points, arm)}
        train([stage for stage in rest if stage.name in needed], run)
        rest = [stage for stage in rest if stage.name not in needed]
        winners = sweep.winners(run.workdir, plan.points)
        if arm not in winners:
            # With --stage, part of the sweep: nothing may use what is not found yet.
            if unswept := [stage.name for stage in rest if stage.name not in plan.points]:
                raise UserError(
                    f"the sweep of {arm!r} to be finished before stage {unswept[0]!r}",
                    f"plan={tuning.NAME!r}, stage={unswept[0]!r}",
                    "Train the stages of the sweep first, or leave out the plan",
                )
            break
        if run.is_chief:
            sweep.write(run.workdir, winners)
        tuned = dataclasses.replace(run.config, tuned=tuning.settings_of(winners))
        run = dataclasses.replace(run, config=tuned)
    return run, rest


def train(wanted: Sequence[Stage], run: Run) -> None:
    """Trains stages, sources first, and prints one line for each."""

    def train_one(stage: Stage, engines: EngineFactory):
        _train(stage, dataclasses.replace(run, make_engine=engines))

    if run.config.devices.parallel_stages:
        train_side_by_side(wanted, run.make_engine, run.config.batch_size, train_one)
    else:
        for stage in wanted:
            train_one(stage, run.make_engine)


def _train(stage: Stage, run: Run):
    if not planned.is_promoted(stage, run.workdir):
        _print(run, f"{stage.name} is left out: others did better.")
        run.outlook.end(stage.name)
        return
    finished = run.workdir.record(stage.name) is not None
    began = time.monotonic()
    run.outlook.begin(stage.name)
    record = run_stage(stage, run.config.settings[stage.name], run)
    run.outlook.end(stage.name)
    left = run.outlook.seconds()
    rest = f" About {duration(left)} left in all." if left else ""
    state = "was finished" if finished else f"took {time.monotonic() - began:.0f} s"
    _print(
        run,
        f"{stage.name} {state}: {record['steps']:,} steps, accuracy {record['accuracy']:.2f} %, "
        f"loss {record['loss_per_token']:.4f} per token, {record['flops']:.3g} FLOPs."
        f"{rest}",
    )


def _print(run: Run, line: str):
    if run.is_chief:
        print(line, flush=True)
