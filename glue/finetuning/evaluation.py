"""Evaluates the checkpoints of a fine-tuning as T5 does, and takes the best one of each task.

    G/RUN/TASK/evaluations/step_00000100.json    what one checkpoint has predicted, and its scores
    G/RUN/submission/CoLA.tsv                    predictions of the best one for the test set
    G/RUN/TASK/result.json                       written last, see glue/results.py

Texts are generated greedily. A checkpoint that is evaluated is not evaluated again, so a process
that is killed anywhere goes on with the next one.
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

Predict = Callable[[Sequence[str]], list[str]]
EVALUATIONS = "evaluations"
SUBMISSION = "submission"


class Evaluation:
    """Evaluates the checkpoints of one fine-tuning.

    Args:
        folder: G/RUN.
        unit: what was learned.
        model: a built model of the checkpoints' configuration; its weights are set.
        predict: generates a text for each input text, with the weights that `model` has then.
        saved: folder of the checkpoints.
        say: prints a line.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        unit: Unit,
        model,
        predict: Predict,
        saved: pathlib.Path,
        say: Callable[[str], None] = print,
    ):
        self._folder = folder
        self._unit = unit
        self._variables = state_variables(model)
        self._predict = predict
        self._saved = saved
        self._say = say
        self._loaded = -1

    def run(self, task: str, steps: Sequence[int]) -> dict[int, dict]:
        """Evaluates checkpoints on a task's validation splits.

        Args:
            task: name of a task of the unit.
            steps: of the checkpoints.

        Returns:
            By step what stands in its file: scores, predictions by split, seconds.

        Raises:
            UserError: a checkpoint that is damaged or not there.
        """
        return {step: self._evaluated(task, step) for step in steps}

    def _evaluated(self, task: str, step: int) -> dict:
        path = self._folder / task / EVALUATIONS / f"{checkpoints.step_folder(step)}.json"
        if path.exists():
            return read_json(path)
        self._load(step)
        began = time.perf_counter()
        found = {}
        for split, pairs in self._unit.evaluated[task].items():
            found[split] = self._predict([text for text, _ in pairs])
        seconds = time.perf_counter() - began
        scores = {}
        for split, pairs in self._unit.evaluated[task].items():
            scores |= metrics.score(task, split, [target for _, target in pairs], found[split])
        content = {
            "step": step,
            "scores": results.finite_or_none(scores),
            "predictions": found,
            "seconds": seconds,
        }
        write_json(path, content)
        said = ", ".join(f"{key} {value:.2f}" for key, value in scores.items())
        self._say(f"{self._folder.name} {task} step {step:,}: {said} ({seconds:.1f} s)")
        return content

    def finish(self, task: str, steps: Sequence[int], test: Mapping[str, Sequence[str]], **facts):
        """Takes the best checkpoint of a task and writes its predictions and result.

        Args:
            task: name of a task of the unit.
            steps: of the checkpoints.
            test: input texts by test split, to be predicted for the benchmark.
            **facts: what else result.json is to say.
        """
        found = self.run(task, steps)
        best = best_step(found)
        for split, texts in test.items():
            self._load(best)
            target = self._folder / SUBMISSION
            path, wrong = submission.write(target, task, split, self._predict(texts))
            self._say(f"{path}: {len(texts):,} predictions, {wrong:,} of them no label")
        predictions = {
            split: ([text for _, text in pairs], found[best]["predictions"][split])
            for split, pairs in self._unit.evaluated[task].items()
        }
        results.write_result(
            self._folder.parent,
            self._folder.name,
            task,
            predictions,
            steps=steps[-1],
            best_step=best,
            curve=[{"step": step, **entry["scores"]} for step, entry in found.items()],
            evaluation_seconds=sum(entry["seconds"] for entry in found.values()),
            synthetic=tasks.find(task).synthetic,
            **facts,
        )

    def _load(self, step: int) -> None:
        if step == self._loaded:
            return
        checkpoint = checkpoints.load(self._saved / checkpoints.step_folder(step))
        for name, variable in self._variables.items():
            if name.startswith(checkpoints.MODEL_PREFIX):
                path = name.removeprefix(checkpoints.MODEL_PREFIX)
                variable.assign(np.asarray(checkpoint.weights[path]))
        self._loaded = step


def steps_of(every: int, last: int) -> list[int]:
    """The steps whose checkpoints are evaluated: multiples of a period, and the last one."""
    return sorted({*range(every, last + 1, every), last})


def best_step(found: Mapping[int, Mapping]) -> int:
    """The step with the largest mean of its scores, of equal ones the first.

    A score that is not defined (a correlation of predictions that are all the same) is below all.
    """

    def mean(step: int) -> float:
        values = found[step]["scores"].values()
        return -math.inf if None in values else sum(values) / len(values)

    return max(sorted(found), key=mean)


def test_inputs(task: str, data_dir: str | None) -> dict[str, list[str]]:
    """Input texts of the test sets that the benchmark takes predictions for, of those there are."""
    found = {}
    for split in tasks.find(task).submissions:
        try:
            found[split] = [text for text, _ in data.load_examples(task, split, data_dir)]
        except tsv.MissingFile as error:
            print(f"{split} of {task} is not predicted. {error}", flush=True)
    return found


def tidy(saved: pathlib.Path, keep: set[int]) -> None:
    """Removes the checkpoints that are the best one of no task."""
    for step, path in step_folders(saved):
        if step not in keep:
            shutil.rmtree(path)
