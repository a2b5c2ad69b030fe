"""The table of `make faults`: programs, faults, and the inputs that the programs read."""

import dataclasses
import json
import pathlib
import random
import shutil
from collections.abc import Callable

from tests.faults import damage, points
from tests.faults.points import Point
from tests.faults.zygote import Zygote
from tests.glue import languages
from tests.keras_fusion.interop import tiny_folders as tiny
from tests.trainers import nano

# Checkpoints between evaluations, calls of one and two steps, lines of training over all of it.
PRETRAIN = (
    "trainers.pretrain",
    "--size=nano",
    "--workdir=W",
    "--steps=8",
    "--eval_every=4",
    "--checkpoint_every=3",
    "--steps_per_call=2",
    "--eval_batches=1",
    "--dropout=0.1",
    "--noprogress",
)
TOKENS = "--data_dir=in/tokens"
_PREPARE = (
    "trainers.prepare",
    "--corpus=text",
    "--corpus_path=in/text.txt",
    f"--vocabulary_pieces={nano.PIECES}",
    f"--num_sentinels={nano.SENTINELS}",
)
_FINETUNE = (
    "glue.finetune",
    "--checkpoint=in/source",
    "--vocabulary=in/tokens",
    "--synthetic",
    "--tasks=synthetic_grammar",
    "--workdir=W",
    "--noprogress",
    "--strategy=one_device",
    "--batch_size=4",
    "--input_length=32",
    "--target_length=10",
    "--steps=4",
    "--checkpoint_every=2",
    "--steps_per_call=1",
    "--eval_batches=1",
)
_TUNE = ("--tune_arms=small_0", "--tune_warmups=0.01,1", "--tune_scales=1,2", "--tune_steps=1")
# One stage of each kind, but for those of self_fusion: fused from a step of its source, with state
# of its source's optimizer, promoted before another one, continued until it is as good as another.
_PLAN = {
    "name": "kinds",
    "stages": [
        {"name": "a", "size": "S"},
        {"name": "b", "size": "S", "seed": 1},
        {"name": "p", "size": "M", "init": "fusion_property", "sources": ["a@3", "b"]},
        {
            "name": "r",
            "size": "M",
            "init": "fusion_rule",
            "sources": ["a", "b"],
            "seed": 2,
            "settings": {"optimizer_state": "grown", "schedule": "continue"},
        },
        {"name": "k", "size": "S", "init": "stacked", "sources": ["b"], "copies": 2},
        {"name": "c", "size": "M", "init": "continued", "sources": ["p"], "until": "r"},
        {"name": "d", "size": "S", "init": "continued", "sources": ["a"], "rivals": ["a", "b"]},
        {"name": "e", "size": "S", "init": "continued", "sources": ["b"], "rivals": ["a", "b"]},
    ],
}


@dataclasses.dataclass(frozen=True)
class Program:
    """A command to which things happen.

    Args:
        command: module and flags; `W` is what it writes, `in` are its inputs.
        reads: the inputs, which are damaged too.
        begins: the input that W is a copy of at the beginning.
        writes: what of W it writes.
        in_bucket: whether W lies in object storage.
        hosts: how many processes run it together.
        backend: of Keras.
    """

    command: tuple[str, ...]
    reads: tuple[str, ...] = ()
    begins: str = ""
    writes: str = "W"
    in_bucket: bool = False
    hosts: int = 1
    backend: str = "tensorflow"


PROGRAMS = {
    "prepare": Program((*_PREPARE, "--data_dir=W"), ("text.txt",)),
    "pretrain": Program((*PRETRAIN, TOKENS, "--plan=self_fusion"), ("tokens",)),
    "pretrain, all kinds": Program(
        (*PRETRAIN, "--plan_file=in/plan.json", "--steps=4", *_PREPARE[1:3]),
        ("text.txt", "plan.json"),
    ),
    "pretrain, tune": Program((*PRETRAIN, TOKENS, "--plan=tune", *_TUNE), ("tokens",)),
    "fuse": Program(
        ("trainers.fuse", "--sources=in/source,in/source", "--output=W", "--noise=0.1"),
        ("source",),
    ),
    "fuse, transformers": Program(
        ("trainers.fuse", "--sources=in/a,in/b", "--output=W", "--norm=rule", "--noverify"),
        ("a", "b"),
    ),
    "convert": Program(("trainers.convert", "--source=in/source", "--output=W"), ("source",)),
    "convert, checkpoint": Program(
        ("trainers.convert", "--source=in/t5", "--output=W", "--format=keras_fusion"), ("t5",)
    ),
    "report": Program(("trainers.report", "--workdir=W"), begins="run", writes="W/report"),
    "finetune": Program(_FINETUNE, ("source", "tokens")),
    "glue.report": Program(("glue.report", "--workdir=W"), begins="tuned", writes="W/report"),
}
PROGRAMS |= {
    f"{name} in a bucket": dataclasses.replace(PROGRAMS[name], in_bucket=True)
    for name in ("prepare", "pretrain", "fuse", "report", "finetune")
}
# Each weight that the layout splits is in two parts, one on each of two hosts.
_SPLIT = "--mesh_shape=model:2"
PROGRAMS |= {
    f"{name} on {hosts} hosts": Program(
        (*PROGRAMS[name].command, *flags), PROGRAMS[name].reads, hosts=hosts, backend=backend
    )
    for name, hosts, backend, flags in (
        ("pretrain", 2, "jax", (_SPLIT, "--optimizer_state=grown_diagonal")),
        ("pretrain", 4, "jax", (f"{_SPLIT},batch:2",)),
        ("pretrain, all kinds", 2, "jax", (_SPLIT,)),
        ("pretrain, tune", 2, "jax", ("--mesh_shape=batch:2",)),
        ("finetune", 2, "jax", (_SPLIT, "--strategy=auto")),
    )
}
PROGRAMS |= {
    f"{name} on 2 hosts of TensorFlow": dataclasses.replace(
        PROGRAMS[name], command=(*PROGRAMS[name].command, "--strategy=multi_worker"), hosts=2
    )
    for name in ("pretrain", "finetune")
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that happens to a process, and to its files before it is started again.

    Args:
        act: of the point; see `points.Point`.
        is_timed: whether it happens at any instant, in place of a site of the program.
        damage: changes the files, and returns how to repair them.
        shows: whether each reader of the damaged file sees it. A run that ends well has not read
            it; its other files must be right, and this one too once it is repaired. In a bucket
            the file there is damaged, and otherwise the copy.
        clock: seconds by which the clock of the second process is ahead.
        codes: exit codes with which the first process may end.
    """

    act: str = "kill"
    is_timed: bool = False
    damage: Callable | None = None
    shows: bool = False
    clock: float = 0.0
    codes: tuple[int, ...] = (-9, 0)

    def draw(self, rng: random.Random, recorded: dict, turn: int, later: bool = False) -> Point:
        """Draws where it happens; arguments as for `points.draw`."""
        if self.is_timed:
            return points.draw_instant(rng, recorded, later)
        return points.draw(rng, recorded, self.act, turn, later)


FAULTS = {
    "SIGKILL": Fault(),
    "any instant": Fault(is_timed=True),
    # Before there are handlers the system ends it.
    "SIGTERM": Fault("term", codes=(75, -15, 0)),
    "SIGSTOP": Fault("stop", codes=(0,)),
    "disk full": Fault("full", codes=(2, 0)),
    "bit flipped": Fault(damage=damage.flip, shows=True),
    "file cut": Fault(damage=damage.cut, shows=True),
    "folder removed": Fault(damage=damage.remove_folder),
    "clock back": Fault(clock=-86_400.0),
}


def pairs() -> list[tuple[str, str]]:
    """Returns the faults and programs that go together."""
    return [(fault, program) for program in PROGRAMS for fault in FAULTS]


def make_inputs(folder: pathlib.Path, zygote: Zygote, *flags: str) -> None:
    """Makes the inputs of the programs, by the programs.

    Args:
        folder: a new folder for them.
        zygote: runs the programs.
        *flags: for the run; with some it has fewer stages, and is not fine-tuned.
    """
    home = folder.with_name("making")
    for path in (folder, home):
        path.mkdir()
    (home / "in").symlink_to(folder)
    languages.write_text(folder / "text.txt")
    (folder / "plan.json").write_text(json.dumps(_PLAN))
    for seed, name in enumerate("ab"):
        tiny.write(folder / name, tiny.LLAMA, tiny.llama(seed))
    made = {"prepared": "prepare", "run": "pretrain", "t5": "convert", "tuned": "finetune"}
    for name, program in made.items():
        more = flags if name == "run" else ()
        if name == "tuned" and flags:
            continue
        ended = zygote.run(home, [*PROGRAMS[program].command, *more])
        assert ended.code == 0, ended.output
        (home / "W").rename(folder / name)
        if name == "prepared":
            (tokens,) = (folder / name).glob("text-*")
            tokens.rename(folder / "tokens")
        if name == "run":
            # With one checkpoint: in the place of a damaged one, an older one would be taken.
            shutil.copytree(folder / name / "small_0", folder / "source")
            (*older, _) = sorted((folder / "source/checkpoints").iterdir())
            for path in older:
                shutil.rmtree(path)
