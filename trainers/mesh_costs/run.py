"""A report of mesh costs: models by name, virtual devices, the table and its JSON file."""

import os
import sys

import keras_fusion as kf
from trainers.engines.mesh import MeshShape
from trainers.errors import UserError
from trainers.files import write_json
from trainers.mesh_costs import measure, table
from trainers.mesh_costs.config import MeshReportConfig
from trainers.plans import sizes
from trainers.programs import recorded
from trainers.versions import installed_versions

# How fast the code would run does not matter, how much memory it needs does: the schedule is the
# one that needs least, and the code is not optimised.
XLA_FLAGS = (
    "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)


def make_devices(count: int) -> None:
    """Makes JAX find so many virtual devices; before it looks for them, which it does once."""
    devices = f"--xla_force_host_platform_device_count={count}"
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), devices, *XLA_FLAGS))


def report(config: MeshReportConfig) -> dict:
    """Compiles what is asked for, prints the table, and writes and returns the JSON content."""
    devices = MeshShape.parse(config.mesh_shape).size
    make_devices(devices)
    models, costs = models_of(config), {}
    for name, model in models.items():
        print(f"{name}: compiling for {devices} devices ...", file=sys.stderr, flush=True)
        costs[name] = measure.measure(model, config)
        print(f"{name}: took {costs[name].compile_seconds:.1f} s", file=sys.stderr, flush=True)
    print(table.text(config, costs))
    content = {
        "config": recorded(config),
        "devices": devices,
        "versions": installed_versions(),
        "conventions": table.CONVENTIONS,
        "models": [
            {"name": name, **model.to_dict(), "costs": costs[name].to_dict()}
            for name, model in models.items()
        ],
    }
    if config.output:
        write_json(config.output, content)
        print(f"Wrote {config.output}")
    return content


def models_of(config: MeshReportConfig) -> dict[str, "kf.models.T5Config"]:
    """Returns `{name: configuration}` of the model, and of what it is fused into."""
    letters = sizes.get_size(config.size).models
    name = letters.get(config.model, config.model)
    try:
        model = kf.models.T5Config.from_size(name, **config.overrides)
    except ValueError as error:
        raise UserError(
            f"--model to be a letter of --size={config.size} ({', '.join(letters)}) or a "
            "size of the library, and its fields to fit",
            f"model={config.model!r}. {error}",
            "Choose another one",
        ) from error
    label = ", ".join([name, *(f"{field}={size}" for field, size in config.overrides.items())])
    models = {label: model}
    if config.fuse is not None:
        models[f"{config.fuse} x {label}"] = model.fused([model] * (config.fuse - 1), config.norm)
    return models
