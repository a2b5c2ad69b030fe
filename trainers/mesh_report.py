"""Says what a training step would cost on a mesh of devices that are not at hand.

    python -m trainers.mesh_report --model=t5_m --fuse=2 --mesh_shape=batch:4,model:4

compiles the step for that mesh on virtual devices and prints, for one of them: bytes of weights,
slots and temporaries, FLOPs, the bytes that collectives send in a step, and the largest mesh that
divides. No weight is given a value. With `--fuse=2` there is a second column: the model fused from
two of these. docs/scaling.md says how to read the table. It takes seconds at the paper's sizes and
about a minute for an 11-billion-parameter T5 on 256 devices, in a few GB.
"""

import dataclasses
import json
import os
import pathlib
import sys

from absl import flags

from trainers import programs
from trainers.errors import UserError, check_new_file
from trainers.plans import sizes
from trainers.versions import installed_versions

# (hidden_dim, num_heads, key_value_dim, intermediate_dim, num_layers) of T5 v1.1 as published.
PUBLISHED = {
    "t5_v1_1_base": (768, 12, 64, 2048, 12),
    "t5_v1_1_large": (1024, 16, 64, 2816, 24),
    "t5_v1_1_xl": (2048, 32, 64, 5120, 24),
    "t5_v1_1_xxl": (4096, 64, 64, 10240, 24),
}
FIELDS = ("hidden_dim", "num_heads", "key_value_dim", "intermediate_dim", "num_layers")
OVERRIDES = (*FIELDS, "vocabulary_size")
CHOICES = {
    "optimizer": ("adafactor", "adamw"),
    "dtype": ("float32", "mixed_bfloat16"),
    "norm": ("property", "rule"),
}

# How fast the code would run does not matter, how much memory it needs does: the schedule is the
# one that needs least, and the code is not optimised.
XLA_FLAGS = (
    "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)


@dataclasses.dataclass(frozen=True)
class MeshReportConfig:
    """What is compiled, and for which mesh; checks itself.

    Args:
        mesh_shape: Mesh TensorFlow's `name:size` pairs, such as "batch:4,model:4".
        layout: `axis:dim` pairs; None for T5's rules.
        size: "tiny", "table8" or "table9": what S, M and L are, batch and length.
        model: a letter of the size or a model's name; None for the size's largest.
        overrides: (field of `T5Config`, value) pairs that change the model.
        batch_size: sequences of the global batch; None for the size's.
        input_length: tokens that the encoder sees in one; None for the size's.
        microbatches: parts that the batch is cut into.
        optimizer: "adafactor" or "adamw".
        dtype: "float32" or "mixed_bfloat16".
        fuse: how many of the model to fuse for a second column; None for no second column.
        norm: norm that this fusion keeps, "property" or "rule".
        output: JSON file to write, or None.

    Raises:
        UserError: a value is unknown or out of range, or the output exists.
    """

    mesh_shape: str
    layout: str | None = None
    size: str = "table9"
    model: str | None = None
    overrides: tuple[tuple[str, int], ...] = ()
    batch_size: int | None = None
    input_length: int | None = None
    microbatches: int = 1
    optimizer: str = "adafactor"
    dtype: str = "float32"
    fuse: int | None = None
    norm: str = "property"
    output: str | None = None

    def __post_init__(self):
        if not self.mesh_shape:
            raise UserError(
                "Expected --mesh_shape to name the dimensions of a mesh. "
                "Received: mesh_shape=''. Write it as --mesh_shape=batch:4,model:4."
            )
        self._fill_from_size()
        self._check_choices()
        self._check_numbers()
        check_new_file(self.output)

    def _fill_from_size(self):
        size = sizes.get_size(self.size)
        defaults = {
            "batch_size": size.batch_size,
            "input_length": size.input_length,
            "model": list(size.models)[-1],
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def _check_choices(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"Expected --{name} to be {' or '.join(choices)}. "
                    f"Received: {name}={getattr(self, name)!r}. Choose one of these."
                )

    def _check_numbers(self):
        least = {"batch_size": 1, "microbatches": 1, "input_length": 3, "fuse": 2}
        given = {name: getattr(self, name) for name in least} | dict(self.overrides)
        for name, value in given.items():
            if value is not None and value < least.get(name, 1):
                raise UserError(
                    f"Expected --{name} to be at least {least.get(name, 1)}. "
                    f"Received: {name}={value}. Give another one."
                )


def prepare_backend() -> None:
    """Makes Keras run on JAX, and JAX on the CPU; before either is imported."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_PLATFORMS"] = "cpu"


def make_devices(count: int) -> None:
    """Makes JAX find so many virtual devices; before it looks for them, which it does once."""
    flags_ = (f"--xla_force_host_platform_device_count={count}", *XLA_FLAGS)
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *flags_)).strip()


def report(config: MeshReportConfig) -> dict:
    """Compiles what the configuration asks for, prints the table, and writes the JSON file.

    Args:
        config: what is compiled.

    Returns:
        What the JSON file holds.

    Raises:
        UserError: the mesh does not fit the model or the batch.
    """
    # Imported here: these import Keras, which reads its backend then.
    from trainers.engines import mesh
    from trainers.mesh_costs import measure, table

    shape = mesh.MeshShape.parse(config.mesh_shape)
    step = measure.Step(
        mesh=shape,
        layout=None if config.layout is None else mesh.Layout.parse(config.layout),
        batch_size=config.batch_size,
        input_length=config.input_length,
        microbatches=config.microbatches,
        optimizer=config.optimizer,
        dtype=config.dtype,
    )
    make_devices(shape.size)
    costs = {}
    for name, model in models(config).items():
        print(f"{name}: compiling for {shape.size} devices ...", file=sys.stderr, flush=True)
        costs[name] = measure.measure(model, step)
        print(f"{name}: took {costs[name].compile_seconds:.1f} s", file=sys.stderr, flush=True)
    print(table.text(step, costs))
    found = {
        "config": dataclasses.asdict(config),
        "devices": shape.size,
        "versions": installed_versions(),
        "conventions": table.CONVENTIONS,
        "models": [
            {"name": name, **model.to_dict(), "costs": costs[name].to_dict()}
            for name, model in models(config).items()
        ],
    }
    if config.output:
        pathlib.Path(config.output).write_text(json.dumps(found, indent=2) + "\n")
        print(f"Wrote {config.output}")
    return found


def models(config: MeshReportConfig) -> dict:
    """`{name: T5Config}` of what is compiled: the model, and what it is fused into.

    Raises:
        UserError: there is no model of that name, or its fields do not go together.
    """
    import keras_fusion as kf

    letters = sizes.get_size(config.size).models
    name = letters.get(config.model, config.model)
    overrides = dict(config.overrides)
    try:
        if name in PUBLISHED:
            fields = dict(zip(FIELDS, PUBLISHED[name], strict=True)) | overrides
            model = kf.models.T5Config(**fields)
        else:
            model = kf.models.T5Config.from_size(name, **overrides)
    except ValueError as error:
        raise UserError(
            f"Expected --model to be a letter of --size={config.size} ({', '.join(letters)}), one "
            f"of {', '.join(PUBLISHED)}, or a size of the library, and its fields to fit. "
            f"Received: model={config.model!r}. {error}"
        ) from error
    label = ", ".join([name, *(f"{field}={value}" for field, value in overrides.items())])
    found = {label: model}
    if config.fuse is not None:
        found[f"{config.fuse} x {label}"] = model.fused([model] * (config.fuse - 1), config.norm)
    return found


_FLAGS = (
    (flags.DEFINE_string, "mesh_shape", None, "Mesh, for instance batch:4,model:4."),
    (flags.DEFINE_string, "layout", None, "Rules axis:dim; by default T5's."),
    (flags.DEFINE_string, "size", "table9", f"What S, M and L are: {', '.join(sizes.SIZES)}."),
    (flags.DEFINE_string, "model", None, "A letter of the size, t5_m, t5_v1_1_xxl, ...; its last."),
    (flags.DEFINE_integer, "batch_size", None, "Sequences of the global batch; the size's."),
    (flags.DEFINE_integer, "input_length", None, "Encoder tokens of one; the size's."),
    (flags.DEFINE_integer, "microbatches", 1, "Parts that the batch is cut into."),
    (flags.DEFINE_string, "optimizer", "adafactor", " or ".join(CHOICES["optimizer"])),
    (flags.DEFINE_string, "dtype", "float32", " or ".join(CHOICES["dtype"])),
    (flags.DEFINE_integer, "fuse", None, "Also report the fusion of so many of the model."),
    (flags.DEFINE_string, "norm", "property", "Norm that this fusion keeps: property or rule."),
    (flags.DEFINE_string, "output", None, "JSON file to write."),
    *((flags.DEFINE_integer, name, None, f"The model's {name}.") for name in OVERRIDES),
)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares this binary's flags in `values`."""
    for define, name, default, text in _FLAGS:
        define(name, default, text, flag_values=values)


def config_from_flags(values: flags.FlagValues) -> MeshReportConfig:
    """Reads the flags into the configuration.

    Raises:
        UserError: the configuration refuses itself.
    """
    fields = [field.name for field in dataclasses.fields(MeshReportConfig)]
    given = {name: values[name].value for name in fields if name != "overrides"}
    overrides = tuple(
        (name, values[name].value) for name in OVERRIDES if values[name].value is not None
    )
    return MeshReportConfig(**given, overrides=overrides)


def main(argv):
    """Reads the flags, and reports."""
    del argv
    config = config_from_flags(flags.FLAGS)
    prepare_backend()
    report(config)


if __name__ == "__main__":
    define_flags()
    programs.run(main)
