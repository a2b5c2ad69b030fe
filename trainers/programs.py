"""How a program starts and ends: flags from the fields of its configuration, --help, exit codes.

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
    75    stopped by a signal, nothing lost: the same command resumes (EX_TEMPFAIL of sysexits.h)

A second signal ends the program at once with 128 plus its number (130, 143), as a shell says it.
"""

import argparse
import dataclasses
import functools
import math
import shlex
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from absl import app, flags

from trainers.errors import USER_ERROR, Stopped, UserError

_WIDTH = 100
_HELP_FLAGS = {f"-{dash}{name}" for dash in ("", "-") for name in ("help", "helpshort", "helpfull")}
_HELP_FLAGS |= {"-h", "-?"}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclasses.dataclass(frozen=True)
class Option:
    """A field that is a flag.

    Attributes:
        help: what --help says of it.
        choices: the only values that are allowed, of a list: of its elements.
        at_least, above, below: limits of a number, or of those of a list.
        distinct: whether a list must not have a value twice.
        group: title under which --help lists it and the fields that follow.
        flag: its flag; by default the field's name.
        parse: function of the flag's name and text that reads it; by default the type says how.
        type: of the value, or of a list's elements.
        is_list: whether the value is a tuple, written with commas.
    """

    help: str
    choices: Collection[str] = ()
    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    distinct: bool = False
    group: str = ""
    flag: str = ""
    parse: Callable[[str, str], object] | None = None
    type: type = str
    is_list: bool = False

    @property
    def words(self) -> str:
        """What the value has to be, such as "a whole number of at least 1"."""
        if self.choices:
            few = len(self.choices) == 2
            names = " or ".join(self.choices) if few else f"one of {', '.join(self.choices)}"
            return f"a list of {', '.join(self.choices)}" if self.is_list else names
        if self.type is str:
            return "a list, comma-separated" if self.is_list else "a text"
        if self.is_list:
            kind = f"{'different ' if self.distinct else ''}{_WORDS[self.type][2:]}s"
            return f"{kind}{self._limits()}, comma-separated"
        return _WORDS[self.type] + self._limits()

    def _limits(self) -> str:
        low = "" if self.at_least is None else f" of at least {self.at_least}"
        low = low if self.above is None else f" above {self.above}"
        if self.below is None:
            return low
        return f"{low} and below {self.below}" if low else f" below {self.below}"

    def accepts(self, value: object) -> bool:
        """Returns whether a value has the type, the choices and the limits of the field."""
        if not self.is_list:
            return self._accepts_one(value)
        distinct = not self.distinct or len(set(value)) == len(value)
        return bool(value) and distinct and all(map(self._accepts_one, value))

    def _accepts_one(self, value: object) -> bool:
        if isinstance(value, bool) or self.type is bool:
            return isinstance(value, bool) and self.type is bool
        if not isinstance(value, int | float if self.type is float else self.type):
            return False
        if self.type is str:
            return not self.choices or value in self.choices
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def read(self, name: str, text: str) -> object:
        """Returns the value that a text stands for.

        Raises:
            UserError: it stands for none; `name` is the flag.
        """
        if self.parse:
            return self.parse(name, text)
        try:
            parts = [part.strip() for part in text.split(",")] if self.is_list else [text]
            values = tuple(self.type(part) for part in parts if part or not self.is_list)
        except ValueError:
            raise self.error(name, text) from None
        value = values if self.is_list else values[0]
        is_no_text = value == () and self.type is str
        if not is_no_text and not self.accepts(value):
            raise self.error(name, text if self.is_list else value)
        return value

    def error(self, name: str, value: object) -> UserError:
        """Returns the error for a value that the field does not accept."""
        return UserError(
            expected=f"--{name} to be {self.words}",
            received=f"{name}={value!r}",
            do="Choose one of these" if self.choices else f"Correct --{name}",
        )


def option(default: object = dataclasses.MISSING, help: str = "", **described) -> object:
    """Returns a dataclass field that is also a flag.

    Args:
        default: of the field; without one the field has to be given.
        help: what --help says of it.
        **described: see `Option`.
    """
    return dataclasses.field(default=default, metadata={"option": Option(help, **described)})


def options(config_class: type, without: Sequence[str] = ()) -> object:
    """Returns a dataclass field that holds another dataclass of options.

    Args:
        config_class: its flags stand beside those of the class with the field.
        without: fields of it that get no flag.
    """
    return dataclasses.field(
        default_factory=config_class, metadata={"nested": (config_class, tuple(without))}
    )


def texts(config_class: type, parse: Callable[[str, str], object], form: str) -> object:
    """Returns a dataclass field that holds what the flags of another dataclass's fields were given.

    Its value is a dictionary; a flag that is not given is not in it.

    Args:
        config_class: dataclass of options.
        parse: function of a field's name and the flag's text.
        form: what --help says of all these texts.
    """
    metadata = {"texts": (config_class, parse, form)}
    return dataclasses.field(default_factory=dict, metadata=metadata)


@functools.cache
def options_of(config_class: type) -> Mapping[str, Option]:
    """Returns the options among the fields of a dataclass, by field."""
    found, group = {}, ""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        known = field.metadata.get("option")
        if known is None:
            continue
        group = known.group or group
        found[field.name] = dataclasses.replace(
            known,
            group=group,
            flag=known.flag or field.name,
            **dict(zip(("type", "is_list"), _kind(hints[field.name]), strict=True)),
        )
    return types.MappingProxyType(found)


def _kind(hint: object) -> tuple[type, bool]:
    """The type of a field's values, None aside, and whether they stand in a tuple."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return (hint if hint in _WORDS else str), False


def check_options(config: object) -> None:
    """Checks the options among the fields of a dataclass; None and () are not checked.

    Raises:
        UserError: naming the first that has another type, is no choice, or beyond its limits.
    """
    for name, known in options_of(type(config)).items():
        value = getattr(config, name)
        if value not in (None, ()) and not known.parse and not known.accepts(value):
            raise known.error(known.flag, value)


def _flags_of(config_class: type, without: Sequence[str] = ()) -> Iterator[tuple[Option, object]]:
    """Options of a configuration, those of nested ones included, with the defaults they have."""
    known = options_of(config_class)
    for field in dataclasses.fields(config_class):
        if field.name in known and field.name not in without:
            yield known[field.name], field.default
        elif "nested" in field.metadata:
            yield from _flags_of(*field.metadata["nested"])
        elif "texts" in field.metadata:
            of, _, form = field.metadata["texts"]
            for setting in options_of(of).values():
                group = f"{setting.group}: {form}"
                yield dataclasses.replace(setting, type=str, group=group), None


def define_flags(config_class: type, values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of a configuration.

    Args:
        config_class: dataclass whose fields are made by `option`, `options` and `texts`.
        values: where they are declared.
    """
    for known, _ in _flags_of(config_class):
        define = flags.DEFINE_bool if known.type is bool else flags.DEFINE_string
        define(known.flag, None, known.help, flag_values=values)


def read_flags(
    config_class: type, values: flags.FlagValues = flags.FLAGS, without: Sequence[str] = ()
) -> dict[str, object]:
    """Returns the fields of a configuration that flags were given for, by name.

    Args:
        config_class: as for `define_flags`.
        values: where they were declared; parsed.
        without: fields that have no flag.

    Raises:
        UserError: a text is no value of its field.
    """
    found = {}
    known = options_of(config_class)
    for field in dataclasses.fields(config_class):
        name = field.name
        if name in known and name not in without:
            flag = known[name].flag
            given = values[flag].value
            if given is not None:
                found[name] = known[name].read(flag, given) if isinstance(given, str) else given
        elif "nested" in field.metadata:
            nested, absent = field.metadata["nested"]
            found[name] = nested(**read_flags(nested, values, absent))
        elif "texts" in field.metadata:
            of, parse, _ = field.metadata["texts"]
            given = {setting: values[each.flag].value for setting, each in options_of(of).items()}
            found[name] = {
                setting: parse(setting, text) for setting, text in given.items() if text is not None
            }
    return found


def parse(config_class: type, arguments: Sequence[str], **computed) -> object:
    """Returns the configuration that some arguments of a command stand for.

    Args:
        config_class: as for `define_flags`.
        arguments: what follows the program's name.
        **computed: fields that no flag sets.

    Raises:
        UserError: an unknown flag, a text that is no value, a configuration that refuses itself.
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
    """Returns what --help prints: the program's docstring and its flags, in groups.

    Args:
        config_class: as for `define_flags`.
        doc: the docstring.
    """
    layout = functools.partial(
        argparse.RawDescriptionHelpFormatter, width=_WIDTH, max_help_position=28
    )
    parser = argparse.ArgumentParser(
        add_help=False, usage=argparse.SUPPRESS, description=doc, formatter_class=layout
    )
    groups = {}
    for known, default in _flags_of(config_class):
        title = known.group or "Flags"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        is_bool = known.type is bool
        text = known.help
        if known.choices:
            text += f" Choices: {', '.join(known.choices)}."
        if default not in (None, "", (), dataclasses.MISSING):
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            text += f" Default: {shown.lower() if is_bool else shown}."
        name = f"--[no]{known.flag}" if is_bool else f"--{known.flag}"
        # Only for its place in the text: absl reads the flags.
        groups[title].add_argument(name, action="store_true", help=text.replace("%", "%%"))
    return parser.format_help()


def run(main: Callable[[object], int | None], config_class: type | None = None) -> None:
    """Runs a program, and prints what is no defect of it as one line.

    `UserError`, keras_fusion's `FusionError`, an unknown flag, an illegal flag value and stray
    positional arguments end the program with exit code 2, `NotFinite` with 3, `Stopped` with 75.
    Every other exception is a defect of the program and keeps its traceback.

    Args:
        main: the program; gets the configuration, returns an exit code or None.
        config_class: dataclass of options, as for `define_flags`; a field `command` gets what was
            typed. Without one, the main module has declared its flags itself, and `main` gets what
            absl gives it.
    """
    if config_class:
        define_flags(config_class)
    app.run(
        functools.partial(_call, main, config_class),
        flags_parser=functools.partial(_parse_flags, config_class),
    )


def _call(main: Callable, config_class: type | None, argv: Sequence[str]) -> int | None:
    try:
        if len(argv) > 1:
            raise UserError(
                expected="flags only, as --name=value",
                received=" ".join(argv[1:4]),
                do="Quote a pattern, so that the shell does not expand it",
            )
        if not config_class:
            return main(argv)
        named = {field.name for field in dataclasses.fields(config_class)}
        computed = {"command": command()} if "command" in named else {}
        return main(config_class(**read_flags(config_class), **computed))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except _user_errors() as error:
        return _fail(error)


def _parse_flags(config_class: type | None, argv: Sequence[str]) -> list[str]:
    if _HELP_FLAGS.intersection(argv[1:]):
        doc = sys.modules["__main__"].__doc__
        if config_class:
            print(help_text(config_class, doc), end="")
        else:
            print(doc, flags.FLAGS.main_module_help(), sep="\n")
        sys.exit()
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(_fail(f"{error} See --help."))


def _user_errors() -> tuple[type[Exception], ...]:
    # The library takes seconds to import and most programs can fail before they need it; while
    # it is not imported, nobody can have raised its error.
    library = sys.modules.get("keras_fusion")
    return (UserError, library.FusionError) if library else (UserError,)


def _fail(error: object) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return getattr(error, "exit_code", USER_ERROR)
