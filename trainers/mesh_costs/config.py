"""Configuration of a report of mesh costs; imports no Keras, whose backend is not chosen yet."""

import dataclasses

from trainers.data.objectives import Objective
from trainers.errors import check_new_file
from trainers.plans import sizes
from trainers.plans.graph import NORMS
from trainers.plans.settings import DTYPES, OPTIMIZER_SCALES
from trainers.programs import check_options, option
from trainers.storage import Kind

# Fields of a T5's configuration that have a flag.
FIELDS = (
    "hidden_dim",
    "num_heads",
    "key_value_dim",
    "intermediate_dim",
    "num_layers",
    "vocabulary_size",
)


@dataclasses.dataclass(frozen=True)
class MeshReportConfig:
    """Model, training step and mesh of a report; checks itself."""

    mesh_shape: str = option(
        "",
        "Mesh TensorFlow's name:size pairs, such as batch:4,model:4.",
        required="batch:4,model:4",
        group="Mesh",
    )
    layout: str | None = option(None, "Rules, axis:dim pairs; without it T5's.")
    microbatches: int = option(1, "Parts that the batch is cut into.", at_least=1)
    size: str = option(
        "table9",
        "What S, M and L are, batch and length.",
        choices=tuple(sizes.SIZES),
        group="Model and step",
    )
    model: str | None = option(
        None, "A letter of the size, t5_m, t5_v1_1_xxl, …; without it the size's largest."
    )
    batch_size: int | None = option(
        None, "Sequences of the global batch; without it the size's.", at_least=1
    )
    input_length: int | None = option(
        None, "Encoder tokens per sequence; without it the size's.", at_least=3
    )
    optimizer: str = option("adafactor", "Optimizer.", choices=tuple(OPTIMIZER_SCALES))
    dtype: str = option("float32", "Precision.", choices=DTYPES)
    hidden_dim: int | None = option(None, "The model's hidden_dim.", at_least=1)
    num_heads: int | None = option(None, "The model's num_heads.", at_least=1)
    key_value_dim: int | None = option(None, "The model's key_value_dim.", at_least=1)
    intermediate_dim: int | None = option(None, "The model's intermediate_dim.", at_least=1)
    num_layers: int | None = option(None, "The model's num_layers.", at_least=1)
    vocabulary_size: int | None = option(None, "The model's vocabulary_size.", at_least=1)
    fuse: int | None = option(
        None, "How many of the model to fuse for a second column.", at_least=2, group="Fusion"
    )
    norm: str = option("property", "Norm that this fusion keeps.", choices=NORMS)
    output: str | None = option(
        None, "New JSON file to write.", group="Output", place=Kind.NEW_FILE
    )

    def __post_init__(self):
        check_options(self)
        check_new_file(self.output)
        size = sizes.get_size(self.size)
        defaults = {"batch_size": size.batch_size, "input_length": size.input_length}
        defaults["model"] = list(size.models)[-1]
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def target_length(self) -> int:
        """Decoder tokens of a sequence, by the size's objective."""
        task = Objective(sizes.get_size(self.size).objective)
        return task.lengths(task.raw_length(self.input_length))[1]

    @property
    def overrides(self) -> dict[str, int]:
        """Fields of the model's configuration that were given."""
        return {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}
