"""Trains the stages of one or more plans, and writes the report.

    python -m trainers.pretrain --plan=baseline,self_fusion --size=tiny --corpus=docs --workdir=W

trains, at tiny size, a baseline of size M from random weights, a small model of size S, and its
self-fusion of size M: about eight minutes on two processor cores, to about 36 and 35 % token
accuracy; the report is W/report/report.html. `make demo` has fewer steps and a learning rate that
falls at the end (docs/demo.md), with which both come to 38 %. At `--size=table8` the command above
is the experiment of the paper's Tables 1 and 2 (batches of 256 x 512 tokens, one million steps per
stage: for accelerators).

The command can be stopped and given again: finished stages are kept, a started one resumes from
its newest checkpoint; after a signal or --max_seconds nothing is lost (exit codes: programs.py).
`--stage=NAME` trains one stage alone, so that stages can run on different machines that share W.
`--plan=table1,figure2,offsets,zero_blocks,when_to_fuse` are the experiments of the paper
(trainers/plans), `--plan_file=FILE.json` trains a plan of your own (trainers/plans/files.py has its
form), and `--repeats=3` trains everything with three seeds: STAGE, STAGE_r2, STAGE_r3.
`--plan=tune` finds learning rates for the arms of table1 first; plans in the same command, or later
in the same workdir, take them. `--plan=gains` compares ways to grow a model at equal compute
(trainers/plans/gains.py); `--plan=domains`, `shapes` and `lengths` fuse sources of other texts,
shapes and lengths (trainers/plans/beyond.py). `--theory_every=N` logs the Lie bracket of fused
stages, and `--profile=STEP:COUNT` profiles a window of steps for TensorBoard.
Settings of stages are written NAME:VALUE[,NAME:VALUE], NAME a stage or a size:
`--steps=S:3000,M:4000 --learning_rate_offset=self_fusion:-500`.

Devices: with TensorFlow `--strategy` (GPUs, hosts, TPUs; data parallel), with KERAS_BACKEND=jax
`--mesh_shape` and `--layout` (model parallel), on several hosts with `--coordinator` (or a
scheduler that says where they are). docs/scaling.md has the commands.
"""

import pathlib

from trainers import programs, reports, stopping
from trainers.engines import hosts
from trainers.pretraining import run
from trainers.pretraining.config import PretrainConfig
from trainers.runs.workdir import REPORT_FILE, REPORT_FOLDER, Workdir


def pretrain(config: PretrainConfig) -> pathlib.Path:
    """Trains what the configuration asks for, writes the report and returns its file."""
    workdir = Workdir(config.workdir)
    if not run.train(config):
        return workdir.path / REPORT_FOLDER / REPORT_FILE
    report = reports.write_report(workdir.path)
    print(f"Report: {report}")
    return report


@stopping.handled()
def main(config: PretrainConfig) -> None:
    """Trains."""
    stopping.limit(config.max_seconds)
    with hosts.joined(config.devices, config.workdir):
        pretrain(config)


if __name__ == "__main__":
    programs.run(main, PretrainConfig)
