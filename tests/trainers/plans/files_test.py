"""Plan files: what they may say, that a known plan survives one, and one line for each mistake."""

import json

import pytest

from tests.trainers import nano
from trainers import plans, pretrain
from trainers.errors import UserError
from trainers.plans import files
from trainers.plans.graph import Stage
from trainers.plans.options import PlanOptions
from trainers.programs import options_of

A = {"name": "a", "size": "S"}
B = {"name": "b", "size": "M", "init": "self_fusion", "sources": ["a"], "copies": 2}


def read(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return files.read_plan(path)


def written(plan, name):
    """A plan as a file that says all of its stages."""
    entries = []
    for stage in plan.stages:
        entry = {name: value for name, value in stage.to_dict().items() if value is not None}
        del entry["source_steps"]
        entry["sources"] = list(map(stage.written, stage.sources))
        del entry["repeat"]
        entries.append(entry)
    return {"name": name, "description": plan.description, "stages": entries}


def example():
    """The file in the docstring."""
    lines = files.__doc__.split("\n\n")[1]
    return lines


def test_the_example_of_the_docstring_is_a_plan(tmp_path):
    plan = read(tmp_path, example())
    assert (plan.name, plan.final) == ("two_then_one", "l")
    a, b, m, large = plan.stages
    assert (a, b) == (Stage("a", "S"), Stage("b", "S", seed=1))
    assert (m.sources, m.source_steps) == (("a", "b"), {"a": 500})
    assert m.settings == {"noise": 0.05, "learning_rate_offset": -100}
    assert large == Stage("l", "L", "self_fusion", ("m",), copies=2, norm="property", seed=3)


@pytest.mark.parametrize("name", list(plans.PLANS))
def test_a_known_plan_written_as_a_file_has_the_same_stages(tmp_path, name):
    built_in = plans.PLANS[name]
    plan = read(tmp_path, written(built_in, "mine"))
    assert plan.name == "mine"
    assert plan.description == built_in.description
    assert set(stage.name for stage in plan.stages) == {stage.name for stage in built_in.stages}
    # Beside the plan itself nothing is declared twice.
    assert plans.merge((built_in, plan)) == plans.merge((built_in,))


def test_checkpoints_on_the_way_survive_a_file(tmp_path):
    plan = read(tmp_path, {"name": "x", "stages": [A, B | {"sources": ["a@500"]}]})
    assert plan.stages[1].source_steps == {"a": 500}
    assert read(tmp_path, written(plan, "x")) == plan


def test_stages_may_stand_in_any_order(tmp_path):
    assert [s.name for s in read(tmp_path, {"name": "x", "stages": [B, A]}).stages] == ["a", "b"]


def one_line(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    message = str(error.value)
    assert message.startswith("Expected")
    assert "Received: " in message
    assert "\n" not in message
    assert "plan.json" in message
    return message


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ('{"name": "x",\n "stages": [\n  {"name": "a" "size": "S"}]}', "line 3, column 16"),
        ('{"name": "x", "name": "y", "stages": []}', "a name twice"),
        ('{"name": NaN}', "NaN for a number"),
        ("[" * 100_000, "recursion"),
        ("", "line 1, column 1"),
        ("[]", "Received: []"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(tmp_path, text, received):
    assert received in one_line(read, tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "plan.json").write_bytes(b'{"name": "\xff"}')
    one_line(files.read_plan, tmp_path / "plan.json")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_what_is_no_file_is_refused(tmp_path, make):
    make(tmp_path / "plan.json")
    one_line(files.read_plan, tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("stages", "received"),
    [
        ([A, B | {"sources": ["c"]}], "stage='c'"),
        (
            [B | {"sources": ["c"]}, B | {"name": "c", "sources": ["b"]}],
            "cycle=b <- c <- b",
        ),
        ([A, A], "name='a' twice"),
        ([A | {"sise": "S"}], 'sise="S"'),
        ([{"size": "S"}], "Received: size"),
        ([A | {"seed": "1"}], 'seed="1"'),
        ([A | {"seed": True}], "seed=true"),
        ([A | {"seed": -1}], "seed=-1"),
        ([A | {"size": "XL"}], "size='XL'"),
        ([A | {"name": "data"}], "name='data'"),
        ([A | {"name": "../a"}], "name='../a'"),
        ([A | {"settings": {"noisy": 1}}], "noisy=1"),
        ([A | {"settings": {"steps": 0}}], "steps=0"),
        ([A | {"like": "ghost"}], "like='ghost'"),
        ([A, B | {"init": "magic"}], "init='magic'"),
        ([A, B | {"sources": [1]}], "source=1"),
        ([A, B | {"sources": ["a@"]}], 'source="a@"'),
        ([A, B | {"sources": ["a@x"]}], 'source="a@x"'),
        ([A, B | {"sources": ["a@0"]}], "source=a@0"),
        (
            [A, {"name": "c", "size": "M", "init": "fusion_rule", "sources": ["a", "a@5"]}],
            'source="a@5" beside another',
        ),
        (["a"], 'Received: "a"'),
        ([], "with 0 stages"),
        ([A | {"name": "small_0", "seed": 5}], "name='small_0', which is another stage"),
    ],
)
def test_stages_that_make_no_plan_are_refused(tmp_path, stages, received):
    assert received in one_line(read, tmp_path, {"name": "x", "stages": stages})


@pytest.mark.parametrize(
    ("plan", "received"),
    [
        ({"name": "baseline", "stages": [A]}, "name='baseline'"),
        ({"name": "", "stages": [A]}, "name=''"),
        ({"stages": [A]}, "Received: stages"),
        ({"name": "x", "stages": {}}, "stages={}"),
        ({"name": "x", "stages": [A], "more": 1}, "more=1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(tmp_path, plan, received):
    assert received in one_line(read, tmp_path, plan)


def config(tmp_path, plan, *arguments):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    return nano.config_of(
        pretrain, f"--plan_file={path}", f"--workdir={tmp_path}/w", "--noprogress", *arguments
    )


def test_a_plan_file_joins_known_plans(tmp_path):
    merged = config(tmp_path, {"name": "mine", "stages": [A, B]}, "--plan=self_fusion")
    assert [plan.name for plan in merged.plans] == ["self_fusion", "mine"]
    assert [stage.name for stage in merged.stages] == ["small_0", "self_fusion", "a", "b"]
    assert [s.name for s in config(tmp_path, {"name": "mine", "stages": [A]}).stages] == ["a"]


def test_widths_that_do_not_add_up_are_refused_before_any_text_is_read(tmp_path):
    wrong = config(tmp_path, {"name": "mine", "stages": [A, B | {"copies": 3}]})
    with pytest.raises(UserError, match=r"'b'.*a \+ a \+ a.*hidden_dim=64\+64\+64, not 128"):
        pretrain.pretrain(wrong)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("step", "fits"), [(1000, True), (1364, True), (750, False), (1500, False)]
)
def test_a_checkpoint_that_is_never_written_is_refused(tmp_path, step, fits):
    plan = {"name": "mine", "stages": [A, B | {"sources": [f"a@{step}"]}]}
    if fits:
        assert config(tmp_path, plan).stages[1].source_steps == {"a": step}
        return
    with pytest.raises(UserError, match=f"from 'a' at multiples.*=500 up to.*1364.*step={step}"):
        config(tmp_path, plan)
    if step == 750:
        config(tmp_path, plan, "--checkpoint_every=a:250")


def test_no_plan_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match="plan=''"):
        nano.config_of(pretrain, f"--workdir={tmp_path}")


def test_help_shows_a_plan_that_can_be_read(tmp_path):
    text = options_of(PlanOptions)["plan_file"].help
    shown = text[text.index("{") : text.rindex("}") + 1]
    assert [stage.name for stage in read(tmp_path, shown).stages] == ["a", "b"]
