"""Flags from fields, --help, and how a program ends: a user's mistake is one line and code 2."""

import dataclasses
import importlib
import os
import platform
import subprocess
import sys
import textwrap
import typing

import pytest
from absl import flags

from trainers import programs
from trainers.errors import UserError
from trainers.programs import option, options
from trainers.storage import Kind

PROGRAMS = (
    *("trainers.prepare", "trainers.pretrain", "trainers.fuse", "trainers.report"),
    *("trainers.advise", "trainers.mesh_report", "glue.finetune", "glue.report"),
)
PROGRAM = '''
"""Counts."""
import dataclasses
from trainers import errors, programs

@dataclasses.dataclass(frozen=True)
class Config:
    count: int = programs.option(0, "A number.", group="Numbers")
    command: str = ""

def main(config):
    if config.count == 1:
        raise errors.UserError("Expected more.\\n  Received: count=1.")
    if config.count == 2:
        import keras_fusion
        raise keras_fusion.FusionError("Expected equal depth.")
    if config.count == 3:
        raise KeyError("defect")
    if config.count == 4:
        raise errors.NotFinite("Expected a finite loss.", step=3)
    if config.count == 5:
        raise errors.Stopped("stopped at step 3 by SIGTERM, saved")
    print(config.command)

programs.run(main, Config)
'''


def start(*command):
    """Runs Python as a user does, who has not set what TensorFlow logs."""
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    env |= {"PYTHONPATH": os.getcwd(), "KERAS_BACKEND": "tensorflow"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env)


def run(*args):
    return start("-c", PROGRAM, *args)


def test_success():
    done = run("--count=7")
    assert (done.returncode, done.stdout, done.stderr) == (0, "python -c --count=7\n", "")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--count=1"], "error: Expected more. Received: count=1.\n"),
        (["--nothing=1"], "error: Unknown command line flag 'nothing' See --help.\n"),
        (
            ["--coordinator=h:1"],
            "error: Unknown command line flag 'coordinator': this program runs on one host, leave "
            "it out.\n",
        ),
        (["--count=x"], "error: Expected --count to be a whole number. Received: count='x'."),
        (["a.txt", "b.txt"], "error: Expected flags only"),
    ],
)
def test_a_mistake_is_one_line(args, line):
    done = run(*args)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("count", "code", "line"),
    [
        (4, 3, "error: Expected a finite loss.\n"),
        (5, 75, "stopped at step 3 by SIGTERM, saved\n"),
    ],
)
def test_other_ends_have_codes_of_their_own(count, code, line):
    done = run(f"--count={count}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", line)


@pytest.mark.slow  # imports keras and its backend in a process of its own
def test_an_error_of_the_library_is_one_line():
    done = run("--count=2")
    assert done.returncode == 2
    assert done.stderr == "error: Expected equal depth.\n"


def test_a_defect_keeps_its_traceback():
    done = run("--count=3")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull", "--helpshort"])
def test_help_ends_well(flag):
    done = run(flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Counts.\n\nNumbers:\n  --count  A number. Default: 0.\n"


@dataclasses.dataclass(frozen=True)
class Inner:
    kind: str = option("a", "Kind.", choices=("a", "b"), group="Inside")
    hidden: int = option(1, "No flag of the outer one.")


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float | None = option(help="Rate", above=0, group="Settings of stages")


@dataclasses.dataclass(frozen=True)
class Config:
    names: tuple[str, ...] = option((), "Names.", group="Outside")
    steps: int | None = option(None, "Steps.", at_least=1)
    rates: tuple[float, ...] | None = option(None, "Rates.", at_least=0, distinct=True)
    root: str = option("data", "Folder.", flag="data_dir")
    every: int | None = option(None, "Period.", bare="10", at_least=1)
    shown: bool = option(True, "Show 100 %.")
    inner: Inner = options(Inner, without=("hidden",))
    settings: dict = options(
        Settings, parse=lambda name, text: (name, text), form="VALUE or NAME:VALUE"
    )
    command: str = ""

    def __post_init__(self):
        programs.check_options(self)


def test_flags_that_are_not_given_leave_the_defaults():
    assert programs.parse(Config, []) == Config()


def test_flags_are_read_by_the_types_of_their_fields():
    config = programs.parse(
        Config,
        [
            *("--names= x ,y,", "--steps=3", "--rates=0,0.5", "--data_dir=d", "--noshown"),
            *("--kind=b", "--rate=a:2"),
        ],
        command="typed",
    )
    assert config == Config(
        names=("x", "y"),
        steps=3,
        rates=(0.0, 0.5),
        root="d",
        shown=False,
        inner=Inner("b"),
        settings={"rate": ("rate", "a:2")},
        command="typed",
    )


@pytest.mark.parametrize(
    ("arguments", "period"),
    [(["--every"], 10), (["--every=3"], 3), (["--every", "--noevery"], None), ([], None)],
)
def test_a_flag_may_stand_without_a_value(arguments, period):
    assert programs.parse(Config, arguments).every == period


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--every=", "--every to be a whole number of at least 1. Received: every=''"),
        ("--steps=0", "--steps to be a whole number of at least 1. Received: steps=0."),
        ("--steps=1.5", "Received: steps='1.5'"),
        ("--steps=2147483648", "of at least 1, at most 2,147,483,647. Received: steps=2147483648"),
        (f"--steps={'9' * 400}", "of at least 1, at most 2,147,483,647. Received: steps=999"),
        (f"--steps={'9' * 5000}", "of at least 1, at most 2,147,483,647. Received: steps='999"),
        ("--rates=1,1", "--rates to be different numbers of at least 0, comma-separated"),
        ("--rates=1,nan", "Received: rates='1,nan'"),
        ("--kind=c", "--kind to be a or b. Received: kind='c'. Choose one of these"),
        ("--hidden=2", "Unknown command line flag 'hidden'"),
    ],
)
def test_a_text_that_is_no_value_is_refused(argument, words):
    with pytest.raises(UserError, match=words):
        programs.parse(Config, [argument])


def test_a_number_without_end_is_said_to_be_none():
    @dataclasses.dataclass(frozen=True)
    class Limit:
        minutes: float = option(1.0, "Minutes.", above=0)

    with pytest.raises(UserError, match="a number above 0, finite. Received: minutes=inf"):
        programs.parse(Limit, ["--minutes=inf"])


@pytest.mark.parametrize("given", [{"steps": 0}, {"steps": "3"}, {"steps": True}, {"root": 1}])
def test_values_that_no_flag_gave_are_checked_too(given):
    with pytest.raises(UserError, match="Received: "):
        Config(**given)


def test_help_lists_flags_in_groups_with_choices_and_defaults():
    text = programs.help_text(Config, "Does it.\n\n    python -m it\n")
    assert text.splitlines() == [
        "Does it.",
        "",
        "    python -m it",
        "",
        "Outside:",
        "  --names          Names.",
        "  --steps          Steps.",
        "  --rates          Rates.",
        "  --data_dir       Folder. Default: data.",
        "  --every[=VALUE]  Period.",
        "  --[no]shown      Show 100 %. Default: true.",
        "",
        "Inside:",
        "  --kind           Kind. Choices: a, b. Default: a.",
        "",
        "Settings of stages: VALUE or NAME:VALUE:",
        "  --rate           Rate",
    ]


@pytest.mark.slow  # imports keras and its backend in a process of its own
def test_a_program_writes_nothing_of_the_machine():
    done = start("-m", "trainers.pretrain", "--plan=none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_lists_its_flags(name):
    program = importlib.import_module(name)
    config_class = typing.get_type_hints(program.main)["config"]
    text = programs.help_text(config_class, program.__doc__)
    assert text.startswith(program.__doc__.splitlines()[0])
    assert f"python -m {name} --" in text
    values = flags.FlagValues()
    programs.define_flags(config_class, values)
    listed = {line.split()[0] for line in text.splitlines() if "  --" in line}
    listed = {name.replace("[no]", "").removesuffix("[=VALUE]") for name in listed}
    assert {f"--{flag}" for flag in values} <= listed
    assert max(map(len, text.splitlines())) <= 100


def test_the_values_of_all_flags_but_folders():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        size: int = programs.option(3)

    @dataclasses.dataclass(frozen=True)
    class Stage:
        steps: int = programs.option(1)
        seed: int = programs.option(0)

    @dataclasses.dataclass(frozen=True)
    class Config:
        workdir: str = programs.option("", place=Kind.RUN)
        names: tuple[str, ...] = programs.option(())
        inner: Inner = programs.options(Inner)
        of_stages: dict = programs.options(Stage, parse=lambda name, text: text)
        computed: int = 0

    config = Config("w", ("a", "b"), Inner(4), {"steps": {"S": 2}})
    expected = {"names": ("a", "b"), "size": 4, "steps": {"S": 2}, "seed": None}
    assert programs.flag_values(config) == expected


def test_a_program_ends_without_going_through_its_objects():
    # What is registered first is called last.
    count = "import atexit, gc; atexit.register(lambda: print(len(gc.get_objects())))"
    done = start("-c", f"{count}\n{PROGRAM}", "--count=7")
    assert int(done.stdout.split()[-1]) < 1000, done.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="Only glibc is told.")
def test_freed_memory_is_kept_for_the_next_array():
    """Pages that the system hands out are counted: a second array of the same size needs none."""
    script = textwrap.dedent("""
        import resource
        import numpy as np
        from trainers.process import keep_freed_memory
        keep_freed_memory()
        def faults():
            np.ones(10_000_000, np.float32)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        first = faults()
        print(faults() - first)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert int(done.stdout) < 1000, done.stderr  # 40 MB are 10,000 pages.
