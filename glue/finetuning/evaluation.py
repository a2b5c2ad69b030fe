"""Evaluates the checkpoints of a fine-tuning as T5 does, and takes the best one of each task.

    G/RUN/TASK/evaluations/step_00000100.json    predictions of one checkpoint, and its scores
    G/RUN/submission/CoLA.tsv                    predictions of the best one for the test set
    G/RUN/TASK/result.json                       written last, see glue/results.py

Texts are generated greedily. A checkpoint that has been evaluated is not evaluated again, so a
process that is killed anywhere resumes with the next one.
"""

import math
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from glue import data, metrics, results, tasks
from glue.data import tsv
from glue.finetuning import submission
from glue.finetuning.units import Unit
from trainers import checkpoints
from trainers.checkpoints.format import step_folders
from trainers.engines.state import state_variables
from trainers.files import read_json, write_json

EVALUATIONS = "evaluations"
SUBMISSION = "submission"


class Evaluator:
    """Evaluates the checkpoints of one fine-tuning.

    The model has their configuration; its weights are set, and `predict` generates texts with them.
    """

    def __init__(
        self, folder: pathlib.Path, unit: Unit, model, predict: Callable[[Sequence[str]], list[str]]
    ):
        self._folder = folder
        self._unit = unit
        self._variables = state_variables(model)
        self._predict = predict
        self._loaded = -1

    def evaluate(self, task: str, step: int) -> dict:
        """Evaluates a checkpoint on a task's validation splits, or reads the file of that."""
        path = self._folder / task / EVALUATIONS / f"{checkpoints.step_folder(step)}.json"
        if path.exists():
            return read_json(path)
        self._load(step)
        began = time.perf_counter()
        splits = self._unit.evaluated[task]
        predictions = {
            split: self._predict([text for text, _ in pairs]) for split, pairs in splits.items()
        }
        seconds = time.perf_counter() - began
        scores = {}
        for split, pairs in splits.items():
            targets = [target for _, target in pairs]
            scores |= metrics.score(task, split, targets, predictions[split])
        content = {
            "step": step,
            "scores": results.finite_or_none(scores),
            "predictions": predictions,
            "seconds": seconds,
        }
        write_json(path, content)
        shown = ", ".join(f"{key} {value:.2f}" for key, value in scores.items())
        print(f"{self._folder.name} {task} step {step:,}: {shown} ({seconds:.1f} s)")
        return content

    def finish(self, task: str, steps: Sequence[int], test: Mapping[str, Sequence[str]], **facts):
        """Takes the best checkpoint of a task and writes its result, and predictions of `test`."""
        evaluations = {step: self.evaluate(task, step) for step in steps}
        best = best_step(evaluations)
        for split, texts in test.items():
            self._load(best)
            path, invalid = submission.write(
                self._folder / SUBMISSION, task, split, self._predict(texts)
            )
            print(f"{path}: {len(texts):,} predictions, {invalid:,} of them no label")
        predictions = {
            split: ([text for _, text in pairs], evaluations[best]["predictions"][split])
            for split, pairs in self._unit.evaluated[task].items()
        }
        results.write_result(
            self._folder.parent,
            self._folder.name,
            task,
            predictions,
            steps=steps[-1],
            best_step=best,
            curve=[{"step": step, **entry["scores"]} for step, entry in evaluations.items()],
            evaluation_seconds=sum(entry["seconds"] for entry in evaluations.values()),
            synthetic=tasks.find(task).synthetic,
            **facts,
        )

    def _load(self, step: int) -> None:
        if step == self._loaded:
            return
        saved = self._folder / self._unit.name / checkpoints.CHECKPOINT_FOLDER
        weights = checkpoints.load(saved / checkpoints.step_folder(step)).weights
        for name, variable in self._variables.items():
            if name.startswith(checkpoints.MODEL_PREFIX):
                path = name.removeprefix(checkpoints.MODEL_PREFIX)
                variable.assign(np.asarray(weights[path]))
        self._loaded = step


def steps_of(every: int, last: int) -> list[int]:
    """The steps whose checkpoints are evaluated: multiples of a period, and the last one."""
    return sorted({*range(every, last + 1, every), last})


def best_step(evaluations: Mapping[int, Mapping]) -> int:
    """The step with the largest mean of its scores, of equal ones the first.

    A score that is not defined (a correlation of predictions that are all the same) is below all.
    """

    def mean(step: int) -> float:
        values = evaluations[step]["scores"].values()
        return -math.inf if None in values else sum(values) / len(values)

    return max(sorted(evaluations), key=mean)


def test_inputs(task: str, data_dir: str | None) -> dict[str, list[str]]:
    """Input texts of the test sets that the benchmark takes predictions for, of those there are."""
    inputs = {}
    for split in tasks.find(task).submissions:
        try:
            inputs[split] = [text for text, _ in data.load_examples(task, split, data_dir)]
        except tsv.MissingFile as error:
            print(f"{split} of {task} is not predicted. {error}", flush=True)
    return inputs


def tidy(saved: pathlib.Path, keep: set[int]) -> None:
    """Removes the checkpoints that are the best one of no task."""
    for step, path in step_folders(saved):
        if step not in keep:
            shutil.rmtree(path)
