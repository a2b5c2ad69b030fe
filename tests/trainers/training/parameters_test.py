"""Overview of a model's weights: sizes by hand, axes as declared, bytes on each device."""

import keras
import pytest

import keras_fusion as kf
from trainers.training import parameters
from trainers.training.columns import aligned

VOCABULARY, HIDDEN, MLP = 64, 8, 32


class Engine:
    """The variables of a model, and the weights that are split."""

    def __init__(self, variables, split=None):
        self.variables, self._split = variables, split or {}

    def splits(self, name):
        return self._split.get(name, ())

    def parts(self, name):
        return 4 if name in self._split else 1


@pytest.fixture(scope="module")
def model():
    config = kf.models.T5Config.from_size("tiny_s", vocabulary_size=VOCABULARY)
    return kf.models.T5(config, seed=0)


def state(model):
    from trainers.engines.state import state_variables

    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    return state_variables(model, optimizer)


def test_each_weight_has_shape_axes_and_bytes(model):
    seen = parameters.overview(model, Engine(state(model)))
    rows = {row[0]: row[1:] for row in seen.rows}
    hidden = model.config.hidden_dim
    count = VOCABULARY * hidden
    (embedding,) = (name for name in rows if name.endswith("embeddings"))
    assert rows[embedding] == (
        f"{VOCABULARY} x {hidden}", "vocab, hidden", "-", "float32",
        f"{count:,}", f"{4 * count:,}", f"{4 * count:,}",
    )  # fmt: skip
    assert "not declared" not in {row[2] for row in seen.rows}
    assert len(rows) == len(model.weights)


def test_totals_are_those_of_keras_and_of_slots_like_the_weights(model):
    totals = parameters.overview(model, Engine(state(model))).totals
    count = model.count_params()
    assert totals["weights"] == parameters.Total(len(model.weights), count, 4 * count, 4 * count)
    # Momentum, and two scalars: the iterations (int32 or int64) and the learning rate.
    optimizer = totals["optimizer"]
    assert optimizer.parameters == count + 2
    assert optimizer.bytes in (4 * count + 8, 4 * count + 12)


def test_of_a_split_weight_a_device_holds_its_part(model):
    variables = state(model)
    name = next(name for name in variables if name.endswith("embeddings"))
    whole = parameters.overview(model, Engine(variables))
    split = parameters.overview(model, Engine(variables, {name: ("model", None)}))
    row = next(row for row in split.rows if row[0] == name.removeprefix("model/"))
    size = 4 * VOCABULARY * model.config.hidden_dim
    assert (row[3], row[6], row[7]) == ("model, -", f"{size:,}", f"{size // 4:,}")
    less = whole.totals["weights"].on_device - split.totals["weights"].on_device
    assert less == size * 3 // 4


def test_the_file_is_the_table_and_the_totals(model, tmp_path):
    engine = Engine(state(model))
    summary = parameters.write(tmp_path / "parameters.txt", model, engine)
    seen = parameters.overview(model, engine)
    lines = (tmp_path / "parameters.txt").read_text().splitlines()
    assert lines[0].split()[:3] == ["weight", "shape", "axes"]
    assert len(lines) == 1 + len(seen.rows) + 1 + 1 + len(seen.totals) + 1
    count = model.count_params()
    assert lines[-1].startswith("all")
    assert summary.startswith(
        f"{count:,} parameters in {len(model.weights)} weights, {4 * count / 1e6:.2f} MB; "
    )


def test_columns_are_aligned():
    lines = aligned([("a", "12"), ("long", "3")], numbers=[1])
    assert lines == ["a     12", "long   3"]
