"""What fine-tunings record, and how reports read it.

    G/RUN/model.json             which model was fine-tuned; written first
    G/RUN/TASK/SPLIT.jsonl       predictions for a validation split: {"target", "prediction"} a line
    G/RUN/TASK/result.json       scores of the task's best checkpoint; written last

A RUN is one pretrained model fine-tuned with one seed, on one task after the other or on their
mixture; repeats are further runs. Other files and folders beside these are left alone.

    model.json   {"format": 1, "run", "model", "stage", "pretrain_steps", "repeat", "seed", …}
    result.json  {"format": 1, "run", "task", "scores": {key: number or null}, "steps", "best_step",
                  "examples": {split: count}, …}

`model` is the row of the paper's tables (`baseline`, `fusion_property`, `self_fusion`, `small`; any
other name gets a row of its own), `stage` the pretraining stage whose record has the cost (of
`small`, one of the small stages), and `pretrain_steps` the steps after its fusion: those of the
stage alone, unless it goes on from another one; then `stage_steps` says its own. A score that is
not a number (a correlation of predictions that are all the same) is null.
What else is in the files is kept for whoever reads them.

Example:
    >>> write_model("G", "self_fusion-250-r0", model="self_fusion", pretrain_steps=250)
    >>> write_result("G", "self_fusion-250-r0", "rte", {"validation": (targets, predictions)})
"""

import dataclasses
import itertools
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

from glue import metrics, tasks
from trainers.errors import UserError
from trainers.files import differences, read_json, write_json, write_text

FORMAT = 1
MODEL_FILE = "model.json"
RESULT_FILE = "result.json"
# What a run was told that does not make it another one: how it was asked for.
_TOLD = {"command": None}


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run has reached on a task.

    Args:
        task: its name.
        scores: by key, times 100; NaN where one is not defined.
        folder: where the predictions lie.
        facts: everything that result.json says.
    """

    task: str
    scores: Mapping[str, float]
    folder: pathlib.Path
    facts: Mapping[str, object]

    def predictions(self, split: str) -> tuple[list[str], list[str]] | None:
        """Target and predicted texts of a split; None where they were not kept.

        Raises:
            UserError: a line that is none of them; the message names file and line.
        """
        path = self.folder / f"{split}.jsonl"
        if not path.exists():
            return None
        targets, predicted = [], []
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
            try:
                entry = json.loads(line)
                targets.append(str(entry["target"]))
                predicted.append(str(entry["prediction"]))
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(
                    "Expected a target and a prediction. Received: "
                    f"file={str(path)!r}, line={number}, value={line[:40]!r}. Evaluate again."
                ) from error
        return targets, predicted


@dataclasses.dataclass(frozen=True)
class Run:
    """One fine-tuned model: the fields of model.json, and its results by task."""

    name: str
    model: str
    stage: str
    pretrain_steps: int
    repeat: int
    results: Mapping[str, Result]
    facts: Mapping[str, object]

    @property
    def scores(self) -> dict[str, float]:
        """The scores of all its tasks, by key."""
        return {
            key: value for result in self.results.values() for key, value in result.scores.items()
        }


def write_model(
    workdir: str | os.PathLike,
    run: str,
    *,
    model: str,
    pretrain_steps: int,
    stage: str | None = None,
    repeat: int = 0,
    seed: int = 0,
    check_only: bool = False,
    **facts: object,
) -> None:
    """Says which model a run fine-tunes; again for the same run changes nothing.

    Args:
        workdir: folder of the results.
        run: name of the run and of its folder.
        model, stage, pretrain_steps: as above; the stage is called like the model if not named.
        repeat: counts the runs of one model, from 0.
        seed: of the fine-tuning.
        check_only: whether to write nothing where there is nothing yet.
        **facts: what else to record, such as a hash of the checkpoint.

    Raises:
        UserError: the folder is of a run of another model; each field that differs is named.
    """
    content = {
        "format": FORMAT,
        "run": run,
        "model": model,
        "stage": stage or model,
        "pretrain_steps": pretrain_steps,
        "repeat": repeat,
        "seed": seed,
        **facts,
    }
    path = pathlib.Path(workdir) / run / MODEL_FILE
    if path.exists():
        before, now = read_json(path), json.loads(json.dumps(content))
        wrong = differences(before | _TOLD, now | _TOLD)
        if wrong:
            raise UserError(
                f"Expected the results folder of this run or a new one. Received: "
                f"file={str(path)!r} of another run ({'; '.join(wrong)}). Choose another --workdir."
            )
    elif not check_only:
        write_json(path, content)


def write_result(
    workdir: str | os.PathLike,
    run: str,
    task: str,
    predictions: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    **facts: object,
) -> dict[str, float]:
    """Scores a task's validation predictions and records them.

    Args:
        workdir: folder of the results.
        run: name of the run.
        task: name of the task.
        predictions: target texts and generated texts of each split that the task is judged by.
        **facts: what else to record: steps, best_step, device_seconds, …

    Returns:
        The scores by key.

    Raises:
        UserError: as for `glue.metrics.score`, or a split is missing, or the task has a
            result; nothing is written then.
    """
    missing = [split for split in tasks.find(task).evaluated if split not in predictions]
    if missing:
        raise UserError(
            f"Expected predictions for {', '.join(tasks.find(task).evaluated)} of {task}. "
            f"Received: none for {', '.join(missing)}."
        )
    folder = pathlib.Path(workdir) / run / task
    if (folder / RESULT_FILE).exists():
        raise UserError(
            "Expected a task without a result. Received: "
            f"file={str(folder / RESULT_FILE)!r}, which is there. Move it away."
        )
    scores = {}
    for split, (targets, predicted) in predictions.items():
        scores |= metrics.score(task, split, targets, predicted)
    for split, pairs in predictions.items():
        lines = [
            json.dumps({"target": target, "prediction": prediction}) + "\n"
            for target, prediction in zip(*pairs, strict=True)
        ]
        write_text(folder / f"{split}.jsonl", "".join(lines))
    content = {
        "format": FORMAT,
        "run": run,
        "task": task,
        "scores": finite_or_none(scores),
        "examples": {split: len(targets) for split, (targets, _) in predictions.items()},
        **facts,
    }
    write_json(folder / RESULT_FILE, content)
    return scores


def finite_or_none(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores as JSON holds them: None for one that is not a number."""
    return {key: value if math.isfinite(value) else None for key, value in scores.items()}


def read_runs(workdir: str | os.PathLike) -> tuple[Run, ...]:
    """Reads every run of a results folder.

    Args:
        workdir: folder of the results.

    Returns:
        The runs, sorted by model, steps and repeat; those without a result too.

    Raises:
        UserError: no such folder, no run in it, a file that cannot be read or lacks a field, a
            score that its task does not have, a result of another run, or two runs that are the
            same repeat of the same model.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise UserError(
            "Expected the folder of fine-tunings (glue.finetune writes one). "
            f"Received: workdir={str(workdir)!r}, which is no folder. Check the path."
        )
    runs = [_read_run(path.parent) for path in sorted(workdir.glob(f"*/{MODEL_FILE}"))]
    if not runs:
        raise UserError(
            f"Expected a folder with at least one run (RUN/{MODEL_FILE}). "
            f"Received: workdir={str(workdir)!r}, which has none. Run glue.finetune first."
        )
    runs.sort(key=lambda run: (run.model, run.pretrain_steps, run.repeat))
    for one, other in itertools.pairwise(runs):
        same = ("model", "pretrain_steps", "repeat")
        if all(getattr(one, field) == getattr(other, field) for field in same):
            raise UserError(
                f"Expected one run of {one.model} after {one.pretrain_steps} steps with "
                f"repeat={one.repeat}. Received: {one.name} and {other.name} in {str(workdir)!r}. "
                "Move one of them away."
            )
    return tuple(runs)


def _read_run(folder: pathlib.Path) -> Run:
    path = folder / MODEL_FILE
    facts = _read(
        path, folder.name, {"model": str, "stage": str, "pretrain_steps": int, "repeat": int}
    )
    results = [_read_result(found) for found in sorted(folder.glob(f"*/{RESULT_FILE}"))]
    return Run(
        folder.name,
        facts["model"],
        facts["stage"],
        facts["pretrain_steps"],
        facts["repeat"],
        {result.task: result for result in results},
        facts,
    )


def _read_result(path: pathlib.Path) -> Result:
    folder = path.parent
    facts = _read(path, folder.parent.name, {"task": str, "scores": dict})
    task = tasks.find(folder.name)
    keys = [score.key for score in task.scores]
    if facts["task"] != folder.name or sorted(facts["scores"]) != sorted(keys):
        raise UserError(
            f"Expected the scores {', '.join(keys)} of {folder.name}. Received: "
            f"file={str(path)!r}, task={facts['task']!r}, "
            f"scores={', '.join(facts['scores']) or 'none'}. "
            "Evaluate the task again."
        )
    scores = {key: _score(facts["scores"][key], key, path) for key in keys}
    return Result(folder.name, scores, folder, facts)


def _score(value: object, key: str, path: pathlib.Path) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(
            f"Expected a number or null. Received: file={str(path)!r}, {key}={value!r}. "
            "Evaluate the task again."
        )
    return float(value)


def _read(path: pathlib.Path, run: str, fields: Mapping[str, type]) -> dict:
    """Reads an object of this format with these fields, which must be of this run."""
    found = read_json(path)
    if found.get("format") != FORMAT or found.get("run") != run:
        raise UserError(
            f"Expected format={FORMAT} and run={run!r}, as its folder is called. Received: "
            f"file={str(path)!r} with format={found.get('format')!r} and run={found.get('run')!r}, "
            "of another run or version. Move it away."
        )
    for field, kind in fields.items():
        value = found.get(field)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(
                f"Expected {field!r} as {kind.__name__}. Received: file={str(path)!r}, "
                f"{field}={value!r}. Run glue.finetune again."
            )
    return found
