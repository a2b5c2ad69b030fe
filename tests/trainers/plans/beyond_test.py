"""Plans of sources that differ in text, shape or length, and stages with such settings."""

import json

import numpy as np
import pytest

from tests.trainers import nano
from trainers import plans, pretrain
from trainers.checkpoints.models import load_model
from trainers.data.batches import PretrainingBatches
from trainers.data.config import DataConfig
from trainers.data.manifest import VOCABULARY
from trainers.data.objectives import Objective
from trainers.data.preparation import prepare
from trainers.engines.losses import loss_sums
from trainers.errors import UserError
from trainers.files import read_json
from trainers.plans import Basis, beyond, read_plan, settings
from trainers.pretraining import run
from trainers.runs.state import RunState
from trainers.runs.workdir import REPORT_FOLDER, RESULTS_FILE, RUN_FILE
from trainers.training.logs import read_metrics

# A step of S costs 2 at the whole length, one of M 8; both in proportion to the length.
COSTS, WHOLE, HALF = {"S": 2.0, "M": 8.0}, 16, 8
FLAGS = {"steps": {"S": 40, "M": 20}}
# All that the three plans vary, in as few stages as there can be.
SECOND = {"text": "second", "training_length": HALF, "shape": "attention"}
SETS = {"second text": {"text": "second"}, "short": {"training_length": HALF}}
PLAN = {
    "name": "mine",
    "stages": [
        {"name": "a", "size": "S", "settings": SECOND, "validations": SETS},
        {"name": "b", "size": "S", "settings": {"shape": "mlp"}, "seed": 1},
        {
            "name": "both",
            "size": "M",
            "init": "fusion_property",
            "sources": ["a", "b"],
            "settings": {"text": "both"},
            "validations": SETS,
        },
    ],
}


def cost(letter, times=None, training_length=None):
    """Attention costs half of a step, and so does the MLP."""
    times = {"num_heads": 1, "intermediate_dim": 1} | dict(times or {})
    return COSTS[letter] * sum(times.values()) / 2 * (training_length or WHOLE) / WHOLE


def plan_of(name, **fields):
    return plans.get_plan(name, Basis(nano.NANO, cost, FLAGS, **fields))


@pytest.mark.parametrize("name", beyond.NAMES)
def test_every_arm_has_the_same_compute(name):
    plan = plan_of(name)
    by_name = {stage.name: stage for stage in plan.stages}
    spent = {}
    for stage in plan.stages:
        resolved = settings.resolve(stage, nano.NANO, FLAGS)
        own_cost = cost(stage.size, resolved.times, resolved.training_length or WHOLE)
        spent[stage.name] = resolved.steps * own_cost + sum(spent[n] for n in stage.sources)
    arms = {point["arm"]: by_name[n] for n, point in plan.points.items() if point["arm"]}
    assert list(arms) == [beyond.FUSED, beyond.ALIKE, beyond.FROM_SCRATCH]
    assert {spent[stage.name] for stage in arms.values()} == {2 * 40 * 2.0 + 20 * 8.0}
    # A fifth of 40 steps of M.
    assert {stage.settings["decay_steps"] for stage in arms.values()} == {8}
    assert {stage.seed for stage in arms.values()} == {2}


def test_sources_differ_by_what_the_plan_is_about():
    differing = {
        name: [dict(stage.settings) for stage in plan_of(name).stages[:2]] for name in beyond.NAMES
    }
    assert differing == {
        "domains": [{"text": text, "steps": 40} for text in ("first", "second")],
        "shapes": [{"shape": shape, "steps": 40} for shape in ("attention", "mlp")],
        "lengths": [{"training_length": HALF, "steps": 80}] * 2,
    }
    long = plan_of("lengths", input_length=32).stages[0].settings
    assert long == {"training_length": 16, "steps": 40}


def test_inputs_without_a_half_are_refused():
    with pytest.raises(UserError, match="--input_length of at least 6.*=lengths. .*length=5"):
        plan_of("lengths", input_length=5)
    plan_of("lengths", input_length=6)


def test_they_stand_beside_the_other_plans():
    plans.merge([*map(plan_of, beyond.NAMES), *plans.PLANS.values()])


@pytest.fixture(scope="module")
def world(tmp_path_factory, patch):
    """A run of `PLAN`, which prepares the second text itself."""
    folder = tmp_path_factory.mktemp("beyond")
    nano.write_tokens(folder)
    nano.write_text(folder / "second.txt", seed=1)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    pretrain.pretrain(asked(folder, SECOND_TEXT.format(folder)))
    return folder


SECOND_TEXT = "--second_corpus_path={}/second.txt"


def asked(folder, *arguments, plan="", workdir="w"):
    (data_dir,) = (folder / "data").glob("text-*")
    return nano.config_of(
        pretrain,
        f"--plan={plan}" if plan else f"--plan_file={folder}/plan.json",
        "--size=nano",
        "--noprogress",
        "--steps=2",
        "--eval_every=2",
        "--eval_batches=1",
        "--learning_rate_scale=1e-9",
        f"--data_dir={data_dir}",
        f"--workdir={folder}/{workdir}",
        *arguments,
    )


def texts_of(folder):
    """Folders of the tokens of both texts."""
    (first,), (second,) = (where.glob("text-*") for where in (folder / "data", folder / "w/data"))
    return first, second


def test_a_stage_is_evaluated_on_what_it_says(world):
    records = nano.records(world / "w")
    for name, record in records.items():
        for point in record["curve"]:
            numbers = point.get("validations", {})
            assert [*numbers] == ([] if name == "b" else [*SETS])
            losses = [of["loss_per_token"] for of in (point, *numbers.values())]
            assert len({*losses}) == len(losses)
    lines = read_metrics(world / "w/a/metrics.jsonl")
    logged = [line["validations"] for line in lines if line["kind"] == "eval"]
    assert logged == [point["validations"] for point in records["a"]["curve"]]


@pytest.mark.parametrize(("name", "length"), [("a", HALF), ("both", WHOLE)])
def test_a_stage_is_trained_on_what_it_says(world, name, length):
    """At this learning rate a model stays as it is: its training loss is that of its batches."""
    seed = RunState(world / "w").record(name)["seed"]
    texts = texts_of(world)[1:] if name == "a" else texts_of(world)
    batches = PretrainingBatches(texts, "train", 2, length, seed)
    model, _ = load_model(world / "w" / name)
    sums = []
    for batch in map(batches.batch, range(2)):
        targets = batch.pop("targets")
        sums.append(loss_sums(model(batch), targets))
    expected = sum(float(of.loss) for of in sums) / sum(int(of.tokens) for of in sums)
    (line,) = [
        line for line in read_metrics(world / f"w/{name}/metrics.jsonl") if line["kind"] == "train"
    ]
    assert line["loss_per_token"] == pytest.approx(expected, rel=1e-4)


def test_a_shape_is_that_of_the_model(world):
    model = RunState(world / "w").stage("a")["model"]
    assert (model["num_heads"], model["intermediate_dim"]) == (3, 8)


def test_the_same_command_finds_all_finished_and_another_text_is_refused(world, capsys):
    pretrain.pretrain(asked(world, SECOND_TEXT.format(world)))
    assert "all stages are finished" in capsys.readouterr().out
    third = prepare(
        DataConfig(
            corpus="text",
            corpus_path=str(nano.write_text(world / "third.txt", seed=2)),
            vocabulary_path=str(texts_of(world)[0] / VOCABULARY),
            num_sentinels=nano.SENTINELS,
            root=str(world / "third"),
        )
    )
    with pytest.raises(UserError, match="stage 'a'.*Received: second_text="):
        pretrain.pretrain(asked(world, f"--second_data_dir={third}"))


def test_a_command_without_the_second_text_leaves_it_as_it_is(world):
    """All that the folder knows of it, so that no other one gets in beside it."""
    (world / "b.json").write_text(json.dumps({"name": "b", "stages": [PLAN["stages"][1]]}))
    before = read_json(world / "w" / RUN_FILE)
    run.train(asked(world, f"--plan_file={world}/b.json"))
    after = read_json(world / "w" / RUN_FILE)
    assert after["second_text"] == before["second_text"]
    assert after["settings"] == before["settings"]
    assert "second train.tokens" in after["settings"]


def test_other_validation_sets_of_a_stage_that_was_started_are_refused(world):
    stages = [{**PLAN["stages"][0], "validations": {"short": {"training_length": 5}}}]
    (world / "other.json").write_text(json.dumps({"name": "other", "stages": stages}))
    config = asked(world, f"--plan_file={world}/other.json", SECOND_TEXT.format(world))
    with pytest.raises(UserError, match="stage 'a'.*Received: validations=.*there it is"):
        run.train(config)


def test_a_second_text_has_to_be_given_and_of_use(world):
    second = f"--second_data_dir={texts_of(world)[1]}"
    with pytest.raises(UserError, match="second text of stage 'domains_first'.*_data_dir=None"):
        asked(world, plan="domains")
    with pytest.raises(UserError, match="where a stage is trained or evaluated on it.*Received"):
        asked(world, second, plan="shapes")
    asked(world, second, "--text=small_0:second", plan="shapes")
    with pytest.raises(UserError, match="second_data_dir='/nowhere', which is no folder"):
        asked(world, "--second_data_dir=/nowhere")
    with pytest.raises(UserError, match="as files, or as the tokens of files.*Leave out one"):
        asked(world, second, SECOND_TEXT.format(world))
    with pytest.raises(UserError, match="as files, or as the tokens of files.*corpus_path='a'"):
        asked(world, "--corpus_path=a")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text", "another text. Received: the tokens of the first in .*Of the second text, --sec"),
        ("none", "no file is there.*Of the second text, --second_corpus_path"),
        ("short", "text for one train batch.*For stage 'a'"),
    ],
)
def test_errors_of_a_second_text_say_so(world, tmp_path, text, words):
    nano.write_text(world / "short.txt", seed=3, paragraphs=40)
    second = f"--second_corpus_path={world}/{text}.txt"
    with pytest.raises(UserError, match=words):
        run.train(asked(world, second, "--batch_size=2000", workdir=tmp_path.name))


def test_a_second_text_of_another_vocabulary_is_refused(world):
    other = nano.write_tokens(world / "other", seed=3, pieces=48)
    config = asked(world, f"--second_data_dir={other}", workdir="v")
    with pytest.raises(UserError, match="texts with one vocabulary.*--vocabulary="):
        pretrain.pretrain(config)
    assert not (world / "v" / RUN_FILE).exists()


@pytest.mark.parametrize(
    ("validations", "words"),
    [
        ({"short": {"dropout": 0.1}}, "the settings of validation 'short' of stage 'a' among text"),
        ({"short": {"text": "third"}}, "text of validation 'short' of stage 'a' to be one of"),
        ({"short": 8}, "settings of validation 'short' of stage 'a'. Received: 8"),
        ({"$\\a$": {}}, "the name of a validation of stage 'a' in letters.*single spaces"),
        ({"": {}}, "the name of a validation of stage 'a' in letters.*Received: name=''"),
    ],
)
def test_validations_of_plan_files_are_checked(tmp_path, validations, words):
    stage = {"name": "a", "size": "S", "validations": validations}
    (tmp_path / "plan.json").write_text(json.dumps({"name": "mine", "stages": [stage]}))
    with pytest.raises(UserError, match=words):
        read_plan(tmp_path / "plan.json")


def test_batches_of_both_texts_have_half_of_each(world):
    """Each half is, row by row, what a batch of that text alone has; prefix LM draws nothing."""
    texts = texts_of(world)
    task = Objective("prefix_lm")
    both = PretrainingBatches(texts, "train", 4, WHOLE, seed=3, objective=task)
    halves = [PretrainingBatches([t], "train", 2, WHOLE, seed=3, objective=task) for t in texts]
    assert both.num_examples == sum(half.num_examples for half in halves)
    assert both.passes(7) == tuple(passes for half in halves for passes in half.passes(7))
    for step in (0, 5, 1000):
        for index, half in enumerate(halves):
            for name, rows in half.batch(step).items():
                np.testing.assert_array_equal(both.batch(step)[name][index::2], rows)


@pytest.mark.slow  # the tests above train stages with the same settings
def test_the_plans_are_trained_and_reported(world):
    pretrain.pretrain(
        asked(world, SECOND_TEXT.format(world), plan=",".join(beyond.NAMES), workdir="plans")
    )
    records = nano.records(world / "plans")
    fused = ["domains_fused", "domains_alike", "shapes_fused", "lengths_fused", "plain_alike"]
    last = [*fused, "domains_baseline", "plain_baseline"]
    # Each fusion has two sources of its own; the small models of other plans are plain_alike's.
    assert len(records) == 3 * len(fused) + 2
    assert len({records[name]["parameters"] for name in last}) == 1
    spent = {name: records[name]["flops"] for name in records}
    whole = {
        name: spent[name] + sum(spent[source] for source in records[name]["sources"])
        for name in last
    }
    assert [*whole.values()] == pytest.approx([whole["plain_baseline"]] * len(whole), rel=0.2)
    results = read_json(world / "plans" / REPORT_FOLDER / RESULTS_FILE)
    assert {*beyond.NAMES} <= {*results["tables"]}
    assert {*beyond.NAMES} <= {*results["figures"]}
