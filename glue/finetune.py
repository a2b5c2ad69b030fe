"""Fine-tunes a pretrained model on GLUE, evaluates it as T5 does, and records its scores.

    python -m glue.finetune --checkpoint=W/self_fusion --tasks=cola,rte --data_dir=DIR --workdir=G

fine-tunes the model on each task separately, evaluates every checkpoint on the validation set by
greedy generation, takes the best one of each task, and predicts the test sets with it
(G/RUN/submission, in the benchmark's format). `--tasks=mixture` trains one model on all tasks,
drawn by their train sizes, and takes the best checkpoint of each task. The checkpoint may be that
of a stage, of any of its steps, or what `trainers.fuse` wrote: a model that was never trained
after its fusion. `--synthetic` needs no data: its tasks are made by rules, and are no GLUE tasks.

`--pretrained=W` in place of the checkpoint takes every model that `trainers.pretrain --plan=table5`
has kept in W: the experiment of Table 5.

Lengths, batch, steps and checkpoint period are T5's for models of its sizes, and smaller for tiny
ones (--help has both). `--repeats=3` does everything with three seeds. Several models may share G;
`python -m glue.report --workdir=G` then has the tables.

    G/RUN/model.json                    which model, and with which settings; RUN is MODEL-STEPS-rN
    G/RUN/TASK or G/RUN/mixture         metrics.jsonl, tensorboard/, checkpoints/ of the training
    G/RUN/TASK/evaluations/             predictions of each checkpoint
    G/RUN/TASK/result.json              scores of the best one (glue/results.py)

The command can be stopped and given again, as with trainers.pretrain: what is finished is kept,
and what was started resumes exactly. In the end only the best checkpoints stay.
"""

from glue.finetuning import run
from glue.finetuning.config import FinetuneConfig
from trainers import programs, stopping
from trainers.engines import hosts


@stopping.handled()
def main(config: FinetuneConfig) -> None:
    """Fine-tunes."""
    stopping.limit(config.max_seconds)
    with hosts.joined(config.devices, config.workdir):
        run.finetune(config)


if __name__ == "__main__":
    programs.run(main, FinetuneConfig)
