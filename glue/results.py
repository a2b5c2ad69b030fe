"""Files that fine-tunings record, and the reading of them for reports.

    G/RUN/model.json             which model was fine-tuned; written first
    G/RUN/TASK/SPLIT.jsonl       predictions for a split: {"target", "prediction"} per line
    G/RUN/TASK/result.json       scores of the task's best checkpoint; written last

A RUN is one pretrained model fine-tuned with one seed, on one task after the other or on their
mixture; repeats are further runs. Other files and folders beside these are left alone.

    model.json   {"format": 1, "run", "model", "stage", "pretrain_steps", "repeat", "seed", …}
    result.json  {"format": 1, "run", "task", "scores": {key: number or null}, "steps", "best_step",
                  "examples": {split: count}, …}

- `model` is the row of the paper's tables (`baseline`, `fusion_property`, `self_fusion`, `small`;
  any other name gets a row of its own).
- `stage` is the pretraining stage whose record has the cost (of `small`, one of the small stages).
- `pretrain_steps` are the steps after its fusion: those of the stage alone, unless it continues
  another one; then `stage_steps` says its own.
- A score that is not a number (a correlation of predictions that are all the same) is null.

All other fields are kept for reports.

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
# Fields of model.json that a run may be given again with another value: how it was asked for.
_FREE = {"command": None}
_MODEL_FIELDS = {"model": str, "stage": str, "pretrain_steps": int, "repeat": int}


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """The scores that a fine-tuning has reached on a task."""

    task: str  # its name
    scores: Mapping[str, float]  # by key, times 100; NaN where one is not defined
    folder: pathlib.Path  # where the predictions lie
    facts: Mapping[str, object]  # everything that result.json says

    def predictions(self, split: str) -> tuple[list[str], list[str]] | None:
        """Target and predicted texts of a split; None where they were not kept."""
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
                received = f"file={str(path)!r}, line={number}, value={line[:40]!r}"
                raise _damaged("a target and a prediction", received) from error
        return targets, predicted


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """One fine-tuned model: the fields of model.json, and its results by task."""

    name: str
    model: str
    stage: str
    pretrain_steps: int
    repeat: int
    results: Mapping[str, TaskResult]
    facts: Mapping[str, object]

    @property
    def key(self) -> tuple[str, int, int]:
        """Model, steps and repeat, which tell it from others."""
        return self.model, self.pretrain_steps, self.repeat

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
    check_only: bool = False,
    **facts: object,
) -> None:
    """Records which model a run fine-tunes; again for the same run changes nothing.

    Args:
        check_only: whether to write nothing where there is nothing yet.
        **facts: what else to record: the stage, where it is not called like the model, the repeat
            and the seed, where they are not 0, a hash of the checkpoint, …

    Raises:
        UserError: the folder is of a run of another model; each field that differs is named.
    """
    content = {"format": FORMAT, "run": run, "model": model, "stage": model}
    content |= {"pretrain_steps": pretrain_steps, "repeat": 0, "seed": 0, **facts}
    path = pathlib.Path(workdir) / run / MODEL_FILE
    if path.exists():
        now = json.loads(json.dumps(content))
        if wrong := differences(read_json(path) | _FREE, now | _FREE):
            raise UserError(
                "the results folder of this run or a new one",
                f"file={str(path)!r} of another run ({'; '.join(wrong)})",
                "Choose another --workdir",
            )
    elif not check_only:
        write_json(path, content)


def write_result(
    workdir: str | os.PathLike,
    run: str,
    task: str,
    predictions: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    **facts: object,
) -> None:
    """Scores predictions (target texts and generated texts by split) of a task and records them.

    Raises:
        UserError: as for `glue.metrics.score`, or a split is missing, or the task has a result;
            nothing is written then.
    """
    evaluated = tasks.find(task).evaluated
    if missing := [split for split in evaluated if split not in predictions]:
        expected = f"predictions for {', '.join(evaluated)} of {task}"
        raise UserError(expected, f"none for {', '.join(missing)}", "Predict every split")
    folder = pathlib.Path(workdir) / run / task
    if (folder / RESULT_FILE).exists():
        received = f"file={str(folder / RESULT_FILE)!r}, which is there"
        raise UserError("a task without a result", received, "Move it away")
    scores = {}
    for split, pairs in predictions.items():
        scores |= metrics.score(task, split, *pairs)
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


def finite_or_none(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores as JSON holds them: None for one that is not a number."""
    return {key: value if math.isfinite(value) else None for key, value in scores.items()}


def read_runs(workdir: str | os.PathLike) -> tuple[FineTuning, ...]:
    """Reads every run of a results folder, by model, steps and repeat; without a result too.

    Raises:
        UserError: no such folder, no run in it, a file that cannot be read or lacks a field, a
            score that its task does not have, a result of another run, or two runs that are the
            same repeat of the same model.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        expected = "the folder of fine-tunings (glue.finetune writes one)"
        raise UserError(expected, f"workdir={str(workdir)!r}, which is no folder", "Check the path")
    runs = [_read_run(path.parent) for path in sorted(workdir.glob(f"*/{MODEL_FILE}"))]
    if not runs:
        raise UserError(
            f"a folder with at least one run (RUN/{MODEL_FILE})",
            f"workdir={str(workdir)!r}, which has none",
            "Run glue.finetune first",
        )

    runs.sort(key=lambda run: run.key)
    for run, following in itertools.pairwise(runs):
        if run.key == following.key:
            raise UserError(
                f"one run of {run.model} after {run.pretrain_steps} steps with repeat={run.repeat}",
                f"{run.name} and {following.name} in {str(workdir)!r}",
                "Move one of them away",
            )
    return tuple(runs)


def _read_run(folder: pathlib.Path) -> FineTuning:
    facts = _read(folder / MODEL_FILE, folder.name, _MODEL_FIELDS)
    results = [_read_result(path) for path in sorted(folder.glob(f"*/{RESULT_FILE}"))]
    return FineTuning(
        folder.name,
        **{field: facts[field] for field in _MODEL_FIELDS},
        results={result.task: result for result in results},
        facts=facts,
    )


def _read_result(path: pathlib.Path) -> TaskResult:
    folder = path.parent
    facts = _read(path, folder.parent.name, {"task": str, "scores": dict})
    recorded, keys = facts["scores"], list(tasks.scores([folder.name]))
    if facts["task"] != folder.name or sorted(recorded) != sorted(keys):
        scores = ", ".join(recorded) or "none"
        received = f"file={str(path)!r}, task={facts['task']!r}, scores={scores}"
        raise _damaged(f"the scores {', '.join(keys)} of {folder.name}", received)
    for key, value in recorded.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise _damaged("a number or null", f"file={str(path)!r}, {key}={value!r}")
    scores = {key: math.nan if recorded[key] is None else float(recorded[key]) for key in keys}
    return TaskResult(folder.name, scores, folder, facts)


def _read(path: pathlib.Path, run: str, fields: Mapping[str, type]) -> dict:
    """Reads an object of this format with these fields, which must be of this run."""
    content = read_json(path)
    if content.get("format") != FORMAT or content.get("run") != run:
        raise UserError(
            f"format={FORMAT} and run={run!r}, as its folder is called",
            f"file={str(path)!r} with format={content.get('format')!r} and "
            f"run={content.get('run')!r}, of another run or version",
            "Move it away",
        )
    for field, kind in fields.items():
        value = content.get(field)
        if not isinstance(value, kind) or isinstance(value, bool):
            received = f"file={str(path)!r}, {field}={value!r}"
            raise _damaged(f"{field!r} as {kind.__name__}", received)
    return content


def _damaged(expected: str, received: str) -> UserError:
    return UserError(expected, received, "Run glue.finetune again")
