"""The order in which the stages of a plan are trained: one after the other, or side by side.

Stages that do not need each other may train at the same time, each on a part of the devices that
is its own; a stage that comes alone has all of them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from trainers.devices import EngineFactory, MeshEngines
from trainers.graphs import Stage


def waves(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Groups stages so that those of a group need only earlier groups, or stages that are not here.

    Args:
        stages: stages, sources before what is fused from them.

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
        batch_size: sequences a batch.
        train: trains one stage with engines; called in a thread of its own.
    """
    for wave in waves(stages):
        if len(wave) == 1:
            train(wave[0], engines)
            continue
        parts = engines.parts(len(wave), batch_size)
        for start in range(0, len(wave), len(parts)):
            together = wave[start : start + len(parts)]
            with ThreadPoolExecutor(len(together), thread_name_prefix="stage") as pool:
                running = [
                    pool.submit(train, stage, part)
                    for stage, part in zip(together, parts, strict=False)
                ]
            for each in running:
                each.result()
