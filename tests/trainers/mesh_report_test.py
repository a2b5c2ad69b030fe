"""The report of a mesh: every figure against a count by hand, its table, its JSON, its errors."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from trainers import programs
from trainers.errors import UserError
from trainers.mesh_costs.config import FIELDS, MeshReportConfig
from trainers.mesh_costs.run import models_of

HIDDEN, INNER, MLP, VOCAB, HEADS = 64, 64, 128, 512, 2  # of tiny_s
ROWS, LENGTH = 8, 32
TARGETS = LENGTH + 1  # prefix LM, as the size has it
ARGUMENTS = (
    "--size=tiny",
    "--model=S",
    "--num_layers=1",
    f"--batch_size={ROWS}",
    f"--input_length={LENGTH}",
)
ROOT = pathlib.Path(__file__).resolve().parents[2]


# The program; then in the same process, as both take long to import and have virtual devices: bytes
# that JAX's own backward pass closes over, beside XLA's account of the compiled step.
_PROGRAM = """
    import json, math, pathlib, runpy, sys

    try:
        runpy.run_module("trainers.mesh_report", run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code

    import jax
    import keras_fusion as kf
    from trainers.mesh_costs import measure
    from trainers.mesh_costs.config import MeshReportConfig
    from trainers.errors import UserError
    from trainers.engines.losses import loss_sums

    config = kf.models.T5Config.from_size("tiny_s", num_layers=1)
    found = {}

    def measured(mesh, parts=1):
        rows = {"batch_size": 32, "input_length": 64, "microbatches": parts}
        return measure.measure(config, MeshReportConfig(mesh, size="tiny", **rows))

    for name, parts in (("whole", 1), ("in parts", 4)):
        found[name] = measured("batch:1", parts).to_dict()
    try:
        measured("model:3")
    except UserError as error:
        found["error"] = str(error)
    model = kf.models.T5(config, seed=0)
    weights = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    ids = jax.ShapeDtypeStruct((32, 64), "int32")
    targets = jax.ShapeDtypeStruct((32, 65), "int32")

    def backward(weights, ids, targets):
        def loss(weights):
            batch = {"encoder_token_ids": ids, "decoder_token_ids": targets}
            logits, _ = model.stateless_call(weights, others, batch, training=True)
            return loss_sums(logits, targets).loss
        return jax.vjp(loss, weights)[1]

    kept = jax.tree.leaves(jax.eval_shape(backward, weights, ids, targets))
    found["kept"] = sum(math.prod(each.shape) * each.dtype.itemsize for each in kept)
    found["tensorflow"] = "tensorflow" in sys.modules
    pathlib.Path("activations.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def reported(folder):
    """The finished process and the JSON of a small model and its fusion on a mesh of 2 x 2."""
    arguments = (*ARGUMENTS, "--mesh_shape=batch:2,model:2", "--fuse=2", "--output=report.json")
    # Without a backend that the user would have chosen.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("KERAS_BACKEND", "JAX_PLATFORMS")
    }
    # The program adds flags to these, which make compiling faster.
    environment |= {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def activations(reported, folder):
    return json.loads((folder / "activations.json").read_text())


@pytest.fixture(scope="module")
def costs(reported):
    """Costs of the small model, and of the fused one."""
    return [model["costs"] for model in reported[1]["models"]]


def bias_products(length):
    """FLOPs of the products of position biases with the buckets of all pairs, there and back.

    The count of a model leaves them out: a lookup would have none.
    """
    return 2 * 2 * (length**2 + (length + 1) ** 2) * 32 * HEADS


def weights_by_hand(width, model_dim):
    """Entries of the shards of a one-layer T5 `width` times as wide, and of the whole."""
    hidden, inner, mlp, heads = (width * size for size in (HIDDEN, INNER, MLP, HEADS))
    split = 2 * VOCAB * hidden  # embedding and head, by vocab
    split += 3 * 4 * hidden * inner  # attentions, by heads
    split += 2 * 3 * hidden * mlp  # gated MLPs, by mlp
    split += 2 * 32 * heads  # position biases, by heads
    whole = 7 * hidden  # norms
    return split // model_dim + whole, split + whole


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
@pytest.mark.parametrize("column", [0, 1])
def test_weights_are_the_shards_of_the_declared_axes(costs, column):
    shard, whole = weights_by_hand(width=column + 1, model_dim=2)

    assert costs[column]["weight_bytes"] == 4 * shard
    assert costs[column]["parameters"] == whole


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
def test_slots_are_split_like_their_weights(costs):
    # No dimension of the small model reaches 128 twice: every slot is as large as its weight. And
    # the number of iterations.
    assert costs[0]["slot_bytes"] == costs[0]["weight_bytes"] + 4
    # Every matrix of the fused model is factored, into vectors of which one is split.
    assert costs[1]["slot_bytes"] < costs[1]["weight_bytes"] / 20


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
def test_arguments_by_xla_are_state_and_batch(costs):
    batch = ROWS // 2 * (LENGTH + 2 * TARGETS) * 4
    for model in costs:
        rest = model["argument_bytes"] - model["weight_bytes"] - model["slot_bytes"] - batch
        assert 0 <= rest < 4096  # seeds of dropout, and how many steps to run


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
def test_products_in_the_program_are_those_counted_from_the_model(costs):
    for width, model in enumerate(costs, start=1):
        biases = bias_products(LENGTH) * width // 2
        assert model["product_flops"] == model["counted_flops"] + biases
        assert 1 < model["xla_flops"] / model["product_flops"] < 1.3


def sent(costs, **fields):
    return sum(
        part["bytes"]
        for part in costs["traffic"]
        if all(part[name] == value for name, value in fields.items())
    )


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
@pytest.mark.parametrize("column", [0, 1])
def test_sums_over_the_model_dim_are_those_of_activations(costs, column):
    width = column + 1
    # One sum of an activation (rows of a replica, length, hidden) in float32; with two devices
    # all-reduce sends 2 (2-1)/2 of it.
    activations = ROWS // 2 * (LENGTH + TARGETS) * HIDDEN * width * 4
    # Forward the outputs of three attentions; backward the inputs of nine projections. Those of
    # the encoder's tokens: 1 + 3 + 2 (keys and values of cross-attention), of the decoder's 2 + 4.
    assert sent(costs[column], rule="heads:model") == 6 * activations
    # Forward an output; backward the inputs of two projections.
    assert sent(costs[column], rule="mlp:model") == 3 * activations


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
@pytest.mark.parametrize("column", [0, 1])
def test_sums_over_the_batch_dim_are_those_of_gradients(costs, column):
    width = column + 1
    shard, _ = weights_by_hand(width, model_dim=2)
    # The table is looked up twice, each with its gradient; the position biases' gradients are added
    # up before the lookup, for (query, key) pairs.
    table = VOCAB // 2 * HIDDEN * width
    biases = HEADS * width // 2 * (LENGTH**2 + TARGETS**2 - 2 * 32)
    assert sent(costs[column], dims="batch") == pytest.approx(
        4 * (shard + table + biases), abs=64
    )  # and a few sums of one number
    assert sent(costs[column], dims="batch") == sent(costs[column], rule="batch:batch")


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
def test_all_that_is_sent_is_in_the_sum(costs):
    for model in costs:
        assert model["sent_bytes"] == pytest.approx(sent(model))
        assert model["unknown_loops"] == 0
        assert {part["kind"] for part in model["traffic"]} <= {"all-reduce", "all-gather"}


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
def test_largest_mesh_divides_heads_and_batch(costs):
    assert costs[0]["largest"] == {"batch": ROWS, "model": HEADS}
    assert costs[1]["largest"] == {"batch": ROWS, "model": 2 * HEADS}


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
def test_report_prints_a_table_and_its_progress(reported):
    done, report = reported
    names = ["tiny_s, num_layers=1", "2 x tiny_s, num_layers=1"]
    assert [model["name"] for model in report["models"]] == names
    assert report["models"][1]["hidden_dim"] == 2 * HIDDEN
    assert report["models"][1]["norm_groups"] == [HIDDEN, HIDDEN]
    assert report["devices"] == 4 and report["config"]["mesh_shape"] == "batch:2,model:2"
    assert f"{names[1]}: compiling for 4 devices" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("mesh batch:2,model:2 (4 devices), layout batch:batch,")
    header = next(line for line in lines if line.startswith("per device"))
    weights = next(line for line in lines if line.startswith("  weights"))
    assert len(header) == len(weights) and header.endswith(names[1])
    assert weights.split()[1:3] == [
        f"{report['models'][0]['costs']['weight_bytes'] / 1e3:.3f}",
        "kB",
    ]


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
def test_temporaries_are_what_the_backward_pass_keeps(activations):
    whole, parts = activations["whole"], activations["in parts"]

    # XLA keeps less than JAX would: it makes some of it again inside fusions.
    assert 0.6 < whole["temporary_bytes"] / activations["kept"] < 1
    # A quarter of the rows at a time, and gradients that are added up.
    assert 0.2 < parts["temporary_bytes"] / whole["temporary_bytes"] < 0.4
    assert whole["product_flops"] == whole["counted_flops"] + bias_products(64)
    # The forward one is the same for all four parts, and made once.
    assert parts["product_flops"] == whole["counted_flops"] + bias_products(64) * (1 + 4) // 2
    assert whole["traffic"] == parts["traffic"] == []
    assert parts["largest"]["batch"] == 8


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
def test_tensorflow_is_not_imported(activations):
    assert not activations["tensorflow"]


@pytest.mark.slow  # mesh_costs/ has the numbers of programs by hand
def test_mesh_that_does_not_divide_is_named_with_those_that_would(activations):
    assert "heads=2" in activations["error"] and "Take 1 or 2" in activations["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "mesh_shape=''"),
        (["--mesh_shape=model:2", "--size=huge"], "size='huge'"),
        (["--mesh_shape=model:2", "--dtype=float16"], "dtype='float16'"),
        (["--mesh_shape=model:2", "--optimizer=sgd"], "optimizer='sgd'"),
        (["--mesh_shape=model:2", "--norm=none"], "norm='none'"),
        (["--mesh_shape=model:2", "--fuse=1"], "fuse=1"),
        (["--mesh_shape=model:2", "--batch_size=0"], "batch_size=0"),
        (["--mesh_shape=model:2", "--microbatches=0"], "microbatches=0"),
        (["--mesh_shape=model:2", "--input_length=2"], "input_length=2"),
        (["--mesh_shape=model:2", "--hidden_dim=0"], "hidden_dim=0"),
        (["--mesh_shape=model:2", "--output=pyproject.toml"], "nothing is overwritten"),
        (["--mesh_shape=model:2", "--output=absent/report.json"], "folder that exists"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_compiled(arguments, message):
    with pytest.raises(UserError, match=message):
        programs.parse(MeshReportConfig, arguments)


def test_models_are_those_of_a_size_and_the_published_ones():
    def names(*arguments):
        return models_of(programs.parse(MeshReportConfig, ["--mesh_shape=model:2", *arguments]))

    assert list(names()) == ["t5_l"]
    assert list(names("--size=table8", "--model=S")) == ["t5_small"]
    before, after = names("--model=t5_v1_1_xl", "--fuse=2", "--norm=rule").values()
    (published,) = names("--model=t5_v1_1_xxl").values()
    for field in FIELDS:
        assert getattr(after, field) == getattr(published, field), field
    assert before.num_heads == 32 and after.norm_groups is None
    with pytest.raises(UserError, match="model='t5_xl'.*t5_medium"):
        names("--model=t5_xl")
