"""Fine-tuning from a checkpoint to a report: its parts, and that no stop changes the result."""

import json
import re
import shutil

import keras
import pytest

import keras_fusion as kf
from glue import finetune, results
from glue.data import synthetic
from glue.finetuning import evaluation, greedy, run, vocabularies
from glue.finetuning.pretrained import of_plan, open_pretrained
from glue.reports import glue_page
from tests.glue import languages, layouts
from tests.trainers import nano
from tests.trainers.training import hparams_page
from trainers import checkpoints, fuse
from trainers.checkpoints.models import find_checkpoint
from trainers.data import manifest, vocabulary
from trainers.data.config import DataConfig
from trainers.data.preparation import prepare
from trainers.engines.state import state_variables
from trainers.errors import UserError
from trainers.runs import locks
from trainers.runs.state import RunState
from trainers.training.logs import RunLog, read_metrics

TASKS = ("synthetic_grammar", "synthetic_similarity")
# Validation: a batch and a part of one.
SIZES = {"train": 40, "validation": 5, "test": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run W as pretraining leaves it, whose vocabulary can write labels, and a fused model.

    Its stage small_0 is at step 3, and was never trained.
    """
    folder = tmp_path_factory.mktemp("finetune")
    languages.write_text(folder / "text.txt")
    tokens = manifest.read(
        prepare(
            DataConfig(
                corpus="text",
                corpus_path=f"{folder}/text.txt",
                vocabulary_pieces=nano.PIECES,
                num_sentinels=nano.SENTINELS,
                root=f"{folder}/w/data",
            )
        )
    )
    state = RunState(folder / "w")
    hashes = {name: file["sha256"][:12] for name, file in tokens["files"].items()}
    state.open(hashes)
    state.start_stage("small_0", {}, {})
    home = state.stage_dir("small_0")
    with pytest.MonkeyPatch.context() as patch, nano.eager():
        nano.define(patch)
        config = kf.models.T5Config.from_size(
            "nano_s", vocabulary_size=tokens["vocabulary"]["padded_size"]
        )
        weights = {
            name: keras.ops.convert_to_numpy(variable)
            for name, variable in state_variables(kf.models.T5(config, seed=0)).items()
        }
        settings = {"settings": {"model": config.to_dict()}}
        checkpoints.save(home / checkpoints.CHECKPOINT_FOLDER, 3, weights, settings)
        fuse.fuse(fuse.FuseConfig((str(home),) * 2, f"{folder}/w/fused", noise=0.1))
        patch.setattr(synthetic, "SIZES", SIZES)
        patch.setattr(greedy, "predictor", sharing(greedy.predictor))
        yield folder


def sharing(make):
    """Models of one configuration share the traced function that generates."""
    first = {}

    def predictor(model, vocabulary, *lengths):
        kind = model.config, lengths
        if kind not in first:
            first[kind] = model, make(model, vocabulary, *lengths)
        twin, predict = first[kind]

        def shared(texts):
            twin.set_weights(model.get_weights())
            with nano.eager(False):
                return predict(texts)

        return shared

    return predictor


def config(world, *arguments, results_folder="g", stage="fused"):
    return nano.config_of(
        finetune,
        f"--checkpoint={world}/w/{stage}",
        f"--workdir={world}/{results_folder}",
        "--noprogress",
        "--strategy=one_device",
        "--batch_size=4",
        "--input_length=48",
        "--target_length=32",
        "--steps=4",
        "--checkpoint_every=2",
        "--steps_per_call=1",
        "--eval_batches=2",
        *arguments,
    )


@pytest.fixture(scope="module")
def finished(world):
    """A model that was never trained after its fusion, fine-tuned on two tasks without a stop."""
    run.finetune(config(world, "--synthetic", f"--tasks={','.join(TASKS)}"))
    return world / "g"


def test_a_fused_model_is_fine_tuned_evaluated_and_recorded(finished, world):
    (tuned,) = results.read_runs(finished)
    assert (tuned.name, tuned.model, tuned.stage) == ("fused-0-r0", "fused", "fused")
    assert (tuned.pretrain_steps, tuned.repeat, tuned.facts["seed"]) == (0, 0, 0)
    assert tuned.facts["learning_rate"] == 0.001 and tuned.facts["dropout"] == 0.1
    assert set(tuned.results) == set(TASKS)
    for result in tuned.results.values():
        assert result.facts["synthetic"] and result.facts["steps"] == 4
        assert [point["step"] for point in result.facts["curve"]] == [2, 4]
        targets, predicted = result.predictions("validation")
        assert len(targets) == len(predicted) == SIZES["validation"]
        saved = [path.name for path in (result.folder / "checkpoints").iterdir()]
        assert saved == [f"step_{result.facts['best_step']:08d}"]


def test_a_finished_one_is_left_alone_and_reported(finished, world, capsys):
    before = nano.content(finished)
    run.finetune(config(world, "--synthetic", f"--tasks={TASKS[0]}"))
    after = nano.content(finished)
    before.pop("run.json"), after.pop("run.json")  # it says what was typed last
    assert after == before
    output = capsys.readouterr().out
    assert output.startswith("Fine-tuning: all stages are finished.\n")
    assert "synthetic_grammar was finished" in output
    path, _ = glue_page.write_report(finished)
    text = path.read_text()
    assert "synthetic grammar" in text and "fused" in text


def test_tensorboard_has_a_row_for_each_task_with_its_settings_and_loss(finished):
    experiment, rows = hparams_page.read(finished)
    expected = {"model": "fused", "pretrain_steps": 0, "seed": 0, "dropout": 0.1, "steps": 4}
    assert {info.name for info in experiment.hparam_infos} >= {"unit", *expected}
    assert {settings["unit"] for settings, _ in rows} == set(TASKS)
    for settings, metrics in rows:
        assert expected.items() <= settings.items()
        lines = read_metrics(finished / "fused-0-r0" / settings["unit"] / "metrics.jsonl")
        last = [line for line in lines if line["kind"] == "eval"][-1]
        assert metrics["eval/loss_per_token"] == pytest.approx(last["loss_per_token"])


class Killed(BaseException):
    """Ends a process as a kill does: nothing after it runs."""


@pytest.mark.slow  # loop_test.py stops the same loop anywhere
def test_a_stop_anywhere_changes_nothing(finished, world, monkeypatch):
    def asked():
        arguments = ("--synthetic", f"--tasks={TASKS[0]}")
        return config(world, *arguments, results_folder="stopped")

    def killed_at(owner, name, call):
        """Lets the process die before some call of a function."""
        calls, function = iter(range(call)), getattr(owner, name)

        def dying(*args, **kwargs):
            if next(calls, None) is None:
                raise Killed
            return function(*args, **kwargs)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, name, dying)
            run.finetune(asked())

    # At step 3, before the second evaluation, before the result, before checkpoints are removed.
    killed_at(RunLog, "advance", 2)
    killed_at(evaluation, "write_json", 1)
    killed_at(results, "write_json", 0)
    killed_at(evaluation, "tidy", 0)
    run.finetune(asked())
    assert numbers(world / "stopped", TASKS[0]) == numbers(finished, TASKS[0])


def numbers(folder, task):
    """All that a fine-tuning computed, without the seconds that it took."""
    home = folder / "fused-0-r0" / task
    values = nano.content(home / "checkpoints")
    values = {name: digest for name, digest in values.items() if name.endswith("safetensors")}
    for path in [home / "result.json", *(home / "evaluations").iterdir()]:
        content = json.loads(path.read_text())
        values[path.name] = {n: v for n, v in content.items() if "seconds" not in n}
    values["validation"] = (home / "validation.jsonl").read_text()
    lines = map(json.loads, (home / "metrics.jsonl").read_text().splitlines())
    values["losses"] = [(line["kind"], line["step"], line["loss"]) for line in lines]
    return values


def test_a_mixture_leaves_out_a_task_whose_files_are_missing(world, capsys):
    for name in ("CoLA/train.tsv", "CoLA/dev.tsv", "CoLA/test.tsv", "MRPC/train.tsv"):
        path = world / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(layouts.FILES[name], encoding="utf-8")
    arguments = (f"--data_dir={world}/files", "--tasks=mixture,cola,mrpc", "--steps=2", "--packed")
    run.finetune(config(world, *arguments, results_folder="mixed"))
    output = capsys.readouterr().out
    assert "mrpc is left out" in output and "dev.tsv" in output
    cost = r"Fine-tuning: 1 stage to train, at most [\d.e+]+ FLOPs, roughly \d+ s; .* on top\.\n"
    assert re.search(cost, output)  # A bound, as rows are packed.
    assert "left in all, measured on fused-0-r0 mixture." in output
    (tuned,) = results.read_runs(world / "mixed")
    assert tuned.facts["mixture"] and tuned.facts["packed"]
    assert tuned.results["cola"].facts["trained_on"] == ["cola"]
    assert (world / "mixed" / "fused-0-r0" / "mixture" / "metrics.jsonl").exists()
    rows = (world / "mixed" / "fused-0-r0" / "submission" / "CoLA.tsv").read_text().splitlines()
    assert rows[0] == "index\tprediction" and [row[:2] for row in rows[1:]] == ["0\t", "1\t"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--learning_rate=0.01",), r"learning_rate=0.01, there it is 0.001"),
        (("--checkpoint_every=1", "--steps=5"), r"steps=5, there it is 4; checkpoint_every=1"),
    ],
)
def test_results_of_another_fine_tuning_are_refused(finished, world, arguments, message):
    before = nano.content(finished)
    for task in (TASKS[0], "synthetic_sentiment"):  # one that is finished, and one that is not
        with pytest.raises(UserError, match=message):
            run.finetune(config(world, "--synthetic", f"--tasks={task}", *arguments))
    after = nano.content(finished)
    assert {**after, "run.json": ""} == {**before, "run.json": ""}


def test_another_checkpoint_under_the_same_name_is_refused(finished, world):
    asked = ("--synthetic", "--tasks=synthetic_sentiment", "--model=fused")
    at_step_0 = config(world, *asked, stage="other")
    fuse.fuse(fuse.FuseConfig((f"{world}/w/small_0",) * 2, f"{world}/w/other", noise=0.2))
    with pytest.raises(UserError, match="stage='other', there it is 'fused'; weights="):
        run.finetune(at_step_0)


def test_the_folder_of_a_pretraining_run_is_no_results_folder(world):
    asked = config(world, "--synthetic", "--tasks=synthetic_grammar", results_folder="w")
    with pytest.raises(UserError, match=r"w' of another run \(kind='fine-tuning'"):
        run.finetune(asked)


def test_other_examples_of_a_task_are_refused(finished, world, monkeypatch):
    monkeypatch.setattr(synthetic, "SIZES", SIZES | {"train": 30})
    with pytest.raises(UserError, match="'synthetic_grammar' with the settings .* train="):
        run.finetune(config(world, "--synthetic", f"--tasks={TASKS[0]}"))


def test_a_label_outside_the_set_is_named_before_anything_is_written(world):
    home = world / "bad" / "CoLA"
    home.mkdir(parents=True)
    for name in ("train.tsv", "dev.tsv"):
        (home / name).write_text("gj04\t1\t\tFine.\nbc01\t7\t*\tNot fine.\n", encoding="utf-8")
    asked = config(world, f"--data_dir={world}/bad", "--tasks=cola", results_folder="new")
    with pytest.raises(UserError, match=r"CoLA/dev.tsv', line=2, value='7'"):
        run.finetune(asked)
    assert not (world / "new").exists()


def test_one_process_at_a_time_fine_tunes_on_a_task(world, finished):
    asked = config(world, "--synthetic", "--tasks=synthetic_sentiment")
    with (
        locks.stages(finished, ["fused-0-r0.synthetic_sentiment"]),
        pytest.raises(UserError, match="by one process at a time"),
    ):
        run.finetune(asked)


def test_a_small_stage_is_a_row_of_the_papers_tables_whatever_its_number(world):
    pretrained = open_pretrained(f"{world}/w/small_0", 0.1)
    assert (pretrained.model, pretrained.stage, pretrained.steps) == ("small", "small_0", 3)


def test_what_a_plan_calls_a_stage_is_its_row(world):
    run_file = world / "w" / "run.json"
    before = run_file.read_text()
    points = {"fused": {"model": "small", "steps": [4], "before": 7}}
    run_file.write_text(json.dumps(json.loads(before) | {"experiments": {"t": {"points": points}}}))
    pretrained = open_pretrained(f"{world}/w/fused", 0.1)
    run_file.write_text(before)
    assert (pretrained.model, pretrained.stage, pretrained.steps, pretrained.config.dropout) == (
        "small",
        "fused",
        7,
        0.1,
    )
    assert open_pretrained(f"{world}/w/fused", 0.1, model="mine").model == "mine"


@pytest.fixture
def table5(world):
    """Makes W a run of plan table5 with one model, trained twice."""
    run_file, home = world / "w" / "run.json", world / "w" / "small_0"
    before = run_file.read_text()
    plan = {"points": {"small_0": {"model": "baseline", "steps": [3]}}, "repeats": 2}
    run_file.write_text(json.dumps(json.loads(before) | {"experiments": {"table5": plan}}))
    again = world / "w" / "small_0_r2"
    shutil.copytree(home, again)
    facts = json.loads((home / "stage.json").read_text())
    facts |= {"repeat_of": "small_0", "repeat": 2}
    (again / "stage.json").write_text(json.dumps(facts))
    yield
    shutil.rmtree(again)
    run_file.write_text(before)


def test_the_models_of_a_run_of_table5_are_all_its_repeats(world, table5):
    models = [open_pretrained(folder, 0.1) for folder in of_plan(f"{world}/w")]
    assert [(m.model, m.steps, m.stage, m.repeat) for m in models] == [
        ("baseline", 3, "small_0", 0), ("baseline", 3, "small_0_r2", 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_every_model_of_a_run_of_table5_is_fine_tuned_with_every_seed(world, table5):
    asked = ("--checkpoint=", f"--pretrained={world}/w", "--synthetic", f"--tasks={TASKS[0]}")
    run.finetune(config(world, *asked, "--steps=2", "--repeats=2", results_folder="all"))
    tuned_models = results.read_runs(world / "all")
    assert {(tuned.model, tuned.pretrain_steps) for tuned in tuned_models} == {("baseline", 3)}
    assert [(tuned.stage, tuned.repeat, tuned.facts["seed"]) for tuned in tuned_models] == [
        ("small_0", 0, 0), ("small_0", 1, 1), ("small_0_r2", 2, 2), ("small_0_r2", 3, 3)
    ]  # fmt: skip
    assert all(TASKS[0] in tuned.results for tuned in tuned_models)


def test_a_run_without_the_models_of_table5_is_refused(world, table5):
    with pytest.raises(UserError, match=r"run of plan table5\. Received: pretrained='.*fused'"):
        of_plan(f"{world}/w/fused")
    shutil.rmtree(world / "w" / "small_0_r2" / "checkpoints")
    with pytest.raises(UserError, match=r"the 2 checkpoints .* 1 that are not there.*step_0+3"):
        of_plan(f"{world}/w")


def test_a_vocabulary_is_found_by_hash_or_compared(world, tmp_path):
    checkpoint = find_checkpoint(world / "w" / "small_0")
    trained = vocabularies.find(checkpoint, 128)
    (folder,) = (world / "w" / "data").glob("text-*/")
    for given in (folder, folder / "vocabulary.model"):
        assert vocabularies.find(checkpoint, 128, str(given)).sha256 == trained.sha256
    unrelated = tmp_path / "other.model"
    unrelated.write_bytes(vocabulary.train(["to be or not to be that is", "the question"], 17))
    with pytest.raises(UserError, match=r"vocabulary='.*other.model' \(.*\), another one than"):
        vocabularies.find(checkpoint, 128, str(unrelated))
    with pytest.raises(UserError, match="of 512 ids.* of 128"):
        vocabularies.find(checkpoint, 512)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tasks=cola,rt",), "task='rt'"),
        (("--synthetic", "--tasks=cola"), "task='cola'"),
        (("--tasks=cola", "--steps=0"), "steps=0"),
        (("--tasks=cola", "--dropout=1"), "dropout=1"),
        (("--tasks=cola", "--learning_rate=nan"), "learning_rate=nan"),
        (("--tasks=cola", "--model=a/b"), "model='a/b'"),
        (("--checkpoint=", "--tasks=cola"), "checkpoint='', pretrained=None"),
        (("--pretrained=w", "--tasks=cola"), "either --checkpoint or --pretrained"),
        (("--checkpoint=", "--pretrained=w", "--model=m"), "model='m'"),
        (("--synthetic", "--data_dir=x"), "Expected --data_dir or --synthetic"),
    ],
)
def test_flags_that_cannot_be_used_are_named(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        config(tmp_path, *arguments)


def test_defaults_suit_the_size_of_the_model(tmp_path):
    asked = nano.config_of(finetune, "--checkpoint=c", "--workdir=g", "--steps=7")
    paper, tiny = asked.resolved(512), asked.resolved(128)
    assert (paper.batch_size, paper.input_length, paper.target_length) == (128, 512, 84)
    assert (paper.steps, paper.checkpoint_every, tiny.batch_size) == (7, 5000, 32)
    assert "wnli" not in asked.named and len(asked.named) == 8


def test_the_best_checkpoint_is_the_first_with_the_largest_mean():
    def entry(*values):
        return {"scores": dict(enumerate(values))}

    evaluations = {1: entry(2.0, None), 2: entry(-1.0, 3.0), 3: entry(1.0, 1.0), 4: entry(0.0, 0.0)}
    assert evaluation.best_step(evaluations) == 2
    assert evaluation.best_step({5: entry(None), 6: entry(None)}) == 5
    assert evaluation.steps_of(100, 250) == [100, 200, 250]
