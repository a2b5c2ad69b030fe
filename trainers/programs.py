"""Start and end of a program: flags from the fields of its configuration, --help, exit codes.

    @dataclasses.dataclass(frozen=True)
    class Config:
        workdir: str = option("", "Folder of the run.", group="Run")
        steps: int | None = option(None, "Training steps; None takes the size's.", at_least=1)
        devices: Devices = options(Devices)

        def __post_init__(self):
            check_options(self)

    def main(config: Config):
        ...

    if __name__ == "__main__":
        run(main, Config)

A setting is written once: name, type, default, help and limits of its flag are those of the field.
A flag that is not given leaves the field its default.

    0     done
    2     the user asked for something impossible, or named a file that cannot be used
    3     the loss became infinite or NaN; the newest checkpoint is from before that
    75    stopped by a signal, nothing lost: the same command resumes (EX_TEMPFAIL of sysexits.h);
          or another host of the run ended: it resumes from the newest checkpoint

A second signal, five seconds later or more, ends the program at once with 128 plus its number (130,
143), as a shell says it.
"""

import argparse
import atexit
import dataclasses
import functools
import gc
import json
import math
import re
import shlex
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence

from absl import app, flags

from trainers import process, stopping
from trainers.errors import USER_ERROR, Stopped, UserError
from trainers.storage import Kind, Places, shown

_WIDTH = 100
_HELP_FLAGS = {f"-{dash}{name}" for dash in ("", "-") for name in ("help", "helpshort", "helpfull")}
_HELP_FLAGS |= {"-h", "-?"}
# Flags of the programs that run on several hosts; the others say that they do not.
_OF_HOSTS = ("coordinator", "num_processes", "process_id")
# What a backend's integers hold; a whole number beyond it is a slip.
LARGEST = 2**31 - 1
_KINDS = {bool: "a yes or no", int: "a whole number", float: "a number", str: "a text"}


@dataclasses.dataclass(frozen=True)
class Option:
    """A field that is a flag, or whose name and limits are those of one."""

    help: str = ""
    choices: Collection[str] = ()  # the only values that are allowed, or elements of a list
    at_least: float | None = None  # this and the next two: limits of a number, or of a list's
    above: float | None = None
    below: float | None = None
    distinct: bool = False  # whether a list must not have a value twice
    required: str = ""  # form of the value, such as "FOLDER", if one has to be given
    group: str = ""  # title under which --help lists it and the fields that follow
    flag: str = ""  # by default the field's name
    bare: str = ""  # text that the flag stands for where it is given without a value
    # Reads the value from the flag's name and text; by default the type says how.
    parse: Callable[[str, str], object] | None = None
    type: type = str  # of the value, or of a list's elements
    place: Kind | None = None  # use of a folder or file, which may be one in object storage
    is_list: bool = False  # whether the value is a tuple, written with commas

    @property
    def words(self) -> str:
        """Description of the values that are allowed, such as "a whole number of at least 1"."""
        if self.choices and not self.is_list:
            few = len(self.choices) == 2
            return " or ".join(self.choices) if few else f"one of {', '.join(self.choices)}"
        limits = {" of at least": self.at_least, " above": self.above, " below": self.below}
        limits = [f"{word} {limit}" for word, limit in limits.items() if limit is not None]
        if not self.is_list:
            return _KINDS[self.type] + " and".join(limits)
        kind = f"{'different ' if self.distinct else ''}{_KINDS[self.type].split(' ', 1)[1]}s"
        among = f" among {', '.join(self.choices)}" if self.choices else ""
        return f"{kind}{' and'.join(limits)}{among}, comma-separated"

    def accepts(self, value: object) -> bool:
        """Returns whether a value has the type, the choices and the limits of the field."""
        values = value if self.is_list else (value,)
        distinct = not self.distinct or len(set(values)) == len(values)
        return bool(values) and distinct and all(map(self._accepts_one, values))

    def _accepts_one(self, value: object) -> bool:
        kind = int | float if self.type is float else self.type
        if isinstance(value, bool) != (self.type is bool) or not isinstance(value, kind):
            return False
        if self.type is str:
            # No path holds a NUL.
            return "\0" not in value and (not self.choices or value in self.choices)
        return (
            (math.isfinite(value) if self.type is float else abs(value) <= LARGEST)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def read(self, text: str) -> object:
        """Returns the value that a text stands for; a `UserError` where it stands for none."""
        if self.parse:
            return self.parse(self.flag, text)
        try:
            parts = [part.strip() for part in text.split(",")] if self.is_list else [text]
            values = tuple(self.type(part) for part in parts if part or not self.is_list)
        except ValueError:
            raise self.error(text) from None
        value = values if self.is_list else values[0]
        is_no_text = value == () and self.type is str
        if not is_no_text and not self.accepts(value):
            raise self.error(text if self.is_list else value)
        return value

    def error(self, value: object) -> UserError:
        """Returns the error for a value that the field does not accept."""
        do = "Choose one of these" if self.choices else f"Correct --{self.flag}"
        expected = f"--{self.flag} to be {self.words}{self.beyond(value)}"
        return UserError(expected, f"{self.flag}={value!r}", do)

    def beyond(self, value: object) -> str:
        """Returns what `words` does not say of a value, or of a text, that is too large."""
        if isinstance(value, float) and not math.isfinite(value):
            return ", finite"
        numbers = re.findall(r"[0-9]{10,}", str(value)) if self.type is int else ()
        is_beyond = any(len(digits) > 10 or int(digits) > LARGEST for digits in numbers)
        return f", at most {LARGEST:,}" if is_beyond else ""


def option(default: object = dataclasses.MISSING, help: str = "", **described) -> object:
    """Returns a dataclass field that is also a flag; `Option` has the other arguments."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **described)})


def options(
    config_class: type,
    without: Collection[str] = (),
    parse: Callable[[str, str], object] | None = None,
    form: str = "",
) -> object:
    """Returns a dataclass field that holds another dataclass of options.

    Args:
        config_class: its flags stand beside those of the class with the field.
        without: fields of it that get no flag.
        parse: function of a flag's name and text. With it the field holds a dictionary: of what
            `parse` returned for the flags that were given.
        form: what --help says of the texts for `parse`.
    """
    return dataclasses.field(
        default_factory=dict if parse else config_class,
        metadata={"options": (config_class, without, parse, form)},
    )


@functools.cache
def _flags_of(config_class: type) -> tuple[tuple[tuple[str, ...], Option, object], ...]:
    """Options of a configuration and of those in it: path of the field, option, default."""
    entries, group = [], ""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if spec := field.metadata.get("option"):
            group = spec.group or group
            kind, is_list = _kind(hints[field.name])
            flag = spec.flag or field.name
            spec = dataclasses.replace(spec, group=group, flag=flag, type=kind, is_list=is_list)
            entries.append(((field.name,), spec, field.default))
        elif "options" in field.metadata:
            nested, without, parse, form = field.metadata["options"]
            for path, spec, default in _flags_of(nested):
                if path[-1] in without:
                    continue
                if parse:
                    title, default = f"{spec.group}: {form}", None
                    spec = dataclasses.replace(spec, parse=parse, group=title)
                entries.append(((field.name, *path), spec, default))
    return tuple(entries)


def _kind(hint: object) -> tuple[type, bool]:
    """The type of a field's values, None aside, and whether they stand in a tuple."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return (hint if hint in _KINDS else str), False


def options_of(config_class: type) -> dict[str, Option]:
    """Returns the options among the fields of a dataclass itself, by field."""
    return {path[0]: spec for path, spec, _ in _flags_of(config_class) if len(path) == 1}


def check_options(config: object) -> None:
    """Checks the options among the fields of a dataclass; None and () are not checked.

    Raises:
        UserError: naming the first that is required and missing, has another type, is no choice,
            or beyond its limits.
    """
    for name, spec in options_of(type(config)).items():
        value = getattr(config, name)
        if spec.required and not value:
            do = f"Add --{spec.flag}={spec.required}"
            raise UserError(f"--{spec.flag} to be given", f"{spec.flag}=''", do)
        if value not in (None, ()) and not spec.parse and not spec.accepts(value):
            raise spec.error(value)


def flag_values(config: object) -> dict[str, object]:
    """Returns the value that each flag of a configuration stands for, folders aside."""
    values = {}
    for path, spec, _ in _flags_of(type(config)):
        value = config
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
        if spec.place is None:
            values[spec.flag] = value
    return values


def recorded(config: object) -> dict[str, object]:
    """Returns the fields of a configuration as a JSON file holds them, with the URLs of copies."""
    return json.loads(shown(json.dumps(dataclasses.asdict(config), ensure_ascii=False)))


def define_flags(config_class: type, values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of a dataclass whose fields are made by `option` and `options`."""
    for _, spec, _ in _flags_of(config_class):
        if spec.type is bool:
            flags.DEFINE_bool(spec.flag, None, spec.help, flag_values=values)
            continue
        flag = flags.Flag(flags.ArgumentParser(), None, spec.flag, None, spec.help)
        flag.boolean = bool(spec.bare)  # absl gives such a flag without a value the text "true"
        flags.DEFINE_flag(flag, values)


def read_flags(config_class: type, values: flags.FlagValues = flags.FLAGS) -> dict[str, object]:
    """Returns the fields of a configuration that flags were given for, by name."""
    fields = {}
    for path, spec, _ in _flags_of(config_class):
        given = values[spec.flag].value
        if spec.bare and given in ("true", "false"):
            given = spec.bare if given == "true" else None
        owner = fields.setdefault(path[0], {}) if len(path) > 1 else fields
        if given is not None:
            owner[path[-1]] = spec.read(given) if isinstance(given, str) else given
    for field in dataclasses.fields(config_class):
        nested, _, parse, _ = field.metadata.get("options", (None,) * 4)
        if nested and not parse:
            fields[field.name] = nested(**fields[field.name])
    return fields


def parse(config_class: type, arguments: Sequence[str], **computed) -> object:
    """Returns the configuration that some arguments of a command stand for.

    Args:
        config_class: as for `define_flags`.
        arguments: what follows the program's name.
        **computed: fields that no flag sets.
    """
    values = flags.FlagValues()
    define_flags(config_class, values)
    try:
        values(["program", *arguments])
    except flags.Error as error:
        raise UserError(f"{error} See --help.") from None
    return config_class(**read_flags(config_class, values), **computed)


def command() -> str:
    """Returns the command that this program was started with, for reports."""
    spec = sys.modules["__main__"].__spec__
    program = ["-m", spec.name] if spec else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


def help_text(config_class: type, doc: str | None) -> str:
    """Returns what --help prints: the program's docstring and its flags, in groups."""
    layout = functools.partial(
        argparse.RawDescriptionHelpFormatter, width=_WIDTH, max_help_position=28
    )
    parser = argparse.ArgumentParser(
        add_help=False, usage=argparse.SUPPRESS, description=doc, formatter_class=layout
    )
    groups = {}
    for _, spec, default in _flags_of(config_class):
        title = spec.group or "Flags"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        is_bool = spec.type is bool
        text = spec.help
        if spec.choices:
            text += f" Choices: {', '.join(spec.choices)}."
        if default not in (None, "", (), dataclasses.MISSING):
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            text += f" Default: {shown.lower() if is_bool else shown}."
        name = f"--[no]{spec.flag}" if is_bool else f"--{spec.flag}{'[=VALUE]' * bool(spec.bare)}"
        # Only for its place in the text: absl reads the flags.
        groups[title].add_argument(name, action="store_true", help=text.replace("%", "%%"))
    return parser.format_help()


def run(main: Callable[[object], int | None], config_class: type) -> None:
    """Runs a program, and prints what is no defect of it as one line.

    `UserError`, keras_fusion's `FusionError`, an unknown flag, an illegal flag value and stray
    positional arguments end the program with exit code 2, `NotFinite` with 3, `Stopped` with 75.
    Every other exception is a defect of the program and keeps its traceback.

    Args:
        main: the program; gets the configuration, returns an exit code or None.
        config_class: as for `define_flags`; a field `command` gets what was typed.
    """
    process.keep_freed_memory()
    # The interpreter goes through all objects when it ends, which takes seconds after TensorFlow
    # and its graphs. Programs close their files before: what an open one buffers may be lost.
    atexit.register(gc.freeze)
    define_flags(config_class)
    app.run(
        functools.partial(_call, main, config_class),
        flags_parser=functools.partial(_parse_flags, config_class),
    )


def _call(main: Callable, config_class: type, argv: Sequence[str]) -> int | None:
    # Here, since absl has a handler of its own until it calls this.
    process.end_at_bus_error()
    places = Places()
    try:
        if len(argv) > 1:
            do = "Quote a pattern, so that the shell does not expand it"
            raise UserError("flags only, as --name=value", " ".join(argv[1:4]), do)
        named = {field.name for field in dataclasses.fields(config_class)}
        computed = {"command": command()} if "command" in named else {}
        # A signal ends the copying before and after the program as it ends the program.
        with stopping.handled(), places:
            _bring(config_class, places)
            return main(config_class(**read_flags(config_class), **computed))
    except (Stopped, *_user_errors()) as error:
        return told(error)


def _bring(config_class: type, places: Places) -> None:
    """Puts places of this machine in the place of those in object storage that flags name."""
    for _, spec, _ in _flags_of(config_class):
        given = flags.FLAGS[spec.flag]
        if spec.place and isinstance(given.value, str):
            given.value = places.local(given.value, spec.place, spec.is_list)


def _parse_flags(config_class: type, argv: Sequence[str]) -> list[str]:
    if _HELP_FLAGS.intersection(argv[1:]):
        doc = sys.modules["__main__"].__doc__
        print(help_text(config_class, doc), end="")
        sys.exit()
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        is_of_hosts = getattr(error, "flagname", "") in _OF_HOSTS
        do = ": this program runs on one host, leave it out." if is_of_hosts else " See --help."
        sys.exit(_fail(f"{error}{do}"))


def told(error: BaseException) -> int | None:
    """Prints what is no defect of the program as a line, and returns its exit code, or None."""
    if isinstance(error, Stopped):
        print(error, file=sys.stderr)
        return error.exit_code
    return _fail(error) if isinstance(error, _user_errors()) else None


def _user_errors() -> tuple[type[Exception], ...]:
    # The library takes seconds to import and most programs can fail before they need it; while
    # it is not imported, nobody can have raised its error.
    library = sys.modules.get("keras_fusion")
    return (UserError, library.FusionError) if library else (UserError,)


def _fail(error: object) -> int:
    print(f"error: {shown(' '.join(str(error).split()))}", file=sys.stderr)
    return getattr(error, "exit_code", USER_ERROR)
