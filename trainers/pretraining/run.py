"""Trains the stages of one or more plans: what `trainers.pretrain` does, report aside."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Sequence

import keras_fusion as kf
from trainers.data import manifest
from trainers.data.config import DataConfig
from trainers.data.preparation import prepare, tell_other_text
from trainers.engines import hosts
from trainers.engines.base import Engine, StepOptions
from trainers.engines.devices import EngineFactory, MeshEngines, engine_factory
from trainers.errors import UserError
from trainers.files import read_json
from trainers.plans import sizes
from trainers.plans.widths import check_widths
from trainers.pretraining import order, outlook, theory_monitor
from trainers.pretraining.config import PretrainConfig
from trainers.pretraining.stage import Run, identity, model_config
from trainers.runs import locks, planned, shared, sources, sweep
from trainers.runs.state import RunState
from trainers.runs.workdir import DATA_FOLDER, RUN_FILE, Workdir
from trainers.training.columns import aligned
from trainers.versions import installed_versions


def train(config: PretrainConfig) -> bool:
    """Trains what the configuration asks for; returns whether this process writes the files.

    Raises:
        UserError: something cannot be used as asked, or another process trains one of the stages;
            nothing that existed was changed.
    """
    _check_widths(config)
    workdir = RunState(config.workdir)
    workdir.check(config.identity())
    config = dataclasses.replace(config, tuned=sweep.read(workdir))
    if config.stage is not None:
        sources.check_sources(*config.wanted, workdir)
    for stage in config.stages:
        sources.check_kept(stage, workdir)
    engines = engine_factory(config.devices)
    engine = engines(StepOptions())
    if config.theory_every:
        theory_monitor.check_engine(engine)
    hosts.check_command(engine, config)
    # No other process trains these at the same time.
    names = [stage.name for stage in config.wanted if workdir.record(stage.name) is None]
    with locks.stages(workdir.path, names) if engine.is_chief else contextlib.nullcontext():
        shared.check_folder(engine, workdir.path)
        _train(config, workdir, engines, engine)
    return engine.is_chief


def _train(
    config: PretrainConfig, workdir: RunState, engines: EngineFactory, engine: Engine
) -> None:
    texts = _data(config)
    do = "Give all hosts the same --data_dir, and the same --second_data_dir"
    hosts.check_same(engine, fingerprints(texts), "the same tokens on all hosts", do)
    run = _run(config, workdir, texts, engines, engine.is_chief)
    if isinstance(engines, MeshEngines):
        letters = dict.fromkeys(stage.size for stage in config.wanted)
        engines.check(map(run.model_config, letters), config.batch_size)
    for stage in config.wanted:
        workdir.check_stage(stage.name, identity(stage, config.settings[stage.name], run))
    if run.is_chief:
        _open(config, workdir, texts)
        _print_plan(config, run)
    run, rest = order.tune(run)
    if run.is_chief:
        _open(run.config, workdir, texts)
    order.train(rest, run)


def _open(config: PretrainConfig, workdir: RunState, texts: Sequence[pathlib.Path]):
    first, *others = map(_corpus, texts)
    with locks.run_files(workdir.path):
        # A second text stays that of the stages that earlier commands have trained on it.
        before = read_json(workdir.path / RUN_FILE) if (workdir.path / RUN_FILE).exists() else {}
        others = others or [before[name] for name in ("second_text",) if name in before]
        settings = before.get("settings", {}) | config.identity() | fingerprints(texts)
        workdir.open(
            settings,
            [plan.name for plan in config.plans],
            experiments=_experiments(config, workdir),
            planned=planned.with_stages(workdir, config.stages),
            tuning=config.tuned_by,
            command=config.command,
            versions=installed_versions(),
            **first,
            **({"second_text": others[0]} if others else {}),
        )


def _experiments(config: PretrainConfig, workdir: Workdir) -> dict:
    """Facts of each plan for reports; points of earlier commands stay.

    Points that were made from other facts, such as budgets, do not go with those of now.
    """
    path = workdir.path / RUN_FILE
    experiments = read_json(path).get("experiments", {}) if path.exists() else {}
    for plan in config.plans:
        facts, points = json.loads(json.dumps([dict(plan.facts), dict(plan.points)]))
        before = experiments.get(plan.name, {})
        kept = before.get("points", {}) if before.get("facts") == facts else {}
        experiments[plan.name] = {
            "description": plan.description,
            "final": plan.final,
            "points": kept | points,
            "facts": facts,
            "repeats": max(before.get("repeats", 1), config.plan_options.repeats),
        }
    return experiments


def _check_widths(config: PretrainConfig):
    """Finds widths that do not add up before any text is read."""
    size = sizes.get_size(config.size)
    configs = {letter: model_config(size, letter, vocabulary_size=128) for letter in size.models}
    fields = {letter: model.to_dict() for letter, model in configs.items()}
    check_widths(config.stages, fields, config.growths, config.resized)


def _data(config: PretrainConfig) -> tuple[pathlib.Path, ...]:
    """The folders of the tokens of the first text, and of the second, if there is one."""
    first = _first_data(config)
    if not (config.second_data_dir or config.second_corpus_path):
        return (first,)
    try:
        second = _second_data(config, first)
        hashes = [
            manifest.read(folder)["files"]["train.tokens"]["sha256"] for folder in (first, second)
        ]
        if len(set(hashes)) == 1:
            raise UserError("another text", f"the tokens of the first in {second}", "Name another")
    except UserError as error:
        flag = "second_data_dir" if config.second_data_dir else "second_corpus_path"
        raise UserError(f"{error} (Of the second text, --{flag}.)") from error
    return first, second


def _second_data(config: PretrainConfig, first: pathlib.Path) -> pathlib.Path:
    """The folder of the tokens of the second text, which get the vocabulary of the first."""
    if config.second_data_dir:
        return pathlib.Path(config.second_data_dir)
    second = DataConfig(
        corpus="text",
        corpus_path=config.second_corpus_path,
        vocabulary_path=str(first / manifest.VOCABULARY),
        num_sentinels=manifest.read(first)["vocabulary"]["sentinels"],
        root=str(pathlib.Path(config.workdir) / DATA_FOLDER),
    )
    return prepare(second)


def _first_data(config: PretrainConfig) -> pathlib.Path:
    """The folder of the tokens, which are prepared where none was named."""
    if config.data_dir:
        _check_vocabulary(config)
        tell_other_text(config.data_dir)
        return pathlib.Path(config.data_dir)
    size = sizes.get_size(config.size)
    return prepare(
        DataConfig(
            corpus=config.corpus,
            corpus_path=config.corpus_path,
            vocabulary_path=config.vocabulary,
            vocabulary_pieces=size.vocabulary_pieces,
            num_sentinels=size.num_sentinels,
            root=str(pathlib.Path(config.workdir) / DATA_FOLDER),
        )
    )


def _check_vocabulary(config: PretrainConfig):
    """Compares a vocabulary that was named with that of the tokens that were named."""
    facts = manifest.read(config.data_dir)["vocabulary"]
    if config.vocabulary and manifest.sha256_of(pathlib.Path(config.vocabulary)) != facts["sha256"]:
        raise UserError(
            f"the vocabulary that the tokens in {config.data_dir!r} were made with",
            f"vocabulary={config.vocabulary!r}, another one",
            "Leave out --vocabulary, or leave out --data_dir to tokenise anew",
        )


def fingerprints(texts: Sequence[pathlib.Path]) -> dict[str, str]:
    """Beginnings of the hashes of prepared tokens, which tell them from others."""
    hashes = {}
    for prefix, folder in zip(("", "second "), texts, strict=False):
        files = manifest.read(folder)["files"]
        hashes |= {f"{prefix}{name}": file["sha256"][:12] for name, file in files.items()}
    return hashes


def _corpus(data_dir: pathlib.Path) -> dict[str, str | float]:
    """The corpus of the tokens, from their manifest; for the report."""
    facts = manifest.read(data_dir)
    files = ", ".join(file["name"] for file in facts["corpus"].get("files", ()))
    texts = {
        "corpus_path": files or None,
        "corpus_note": facts["corpus"].get("note"),
        "corpus_unknown": manifest.unknown_share(facts),
    }
    texts = {name: text for name, text in texts.items() if text is not None}
    return {"corpus": facts["config"]["corpus"]} | texts


def _run(
    config: PretrainConfig,
    workdir: RunState,
    texts: Sequence[pathlib.Path],
    engines: EngineFactory,
    is_chief: bool,
) -> Run:
    vocabulary_size = manifest.read(texts[0])["vocabulary"]["padded_size"]
    run = Run(config, workdir, texts, vocabulary_size, engines, is_chief)
    works = outlook.works(
        config.wanted, config.settings, run.stage_config, workdir, config.batch_size, run.lengths
    )
    run = dataclasses.replace(run, outlook=outlook.Outlook(works, outlook.expected_speed()))
    # Faults are found now, and not when the first stage is trained or evaluated.
    users = {("validation", "first", None): ""}
    for stage in config.wanted:
        how, where = config.settings[stage.name], f"stage {stage.name!r}"
        users.setdefault(("train", how.text or "first", how.training_length), where)
        for name, of in stage.validations.items():
            key = ("validation", of.get("text", "first"), of.get("training_length"))
            users.setdefault(key, f"validation {name!r} of {where}")
    for (split, text, length), user in users.items():
        try:
            run.batches(split, seed=0, text=text, training_length=length)
        except UserError as error:
            raise UserError(f"{error} (For {user}.)") if user else error from None
    return run


def _print_plan(config: PretrainConfig, run: Run):
    """Prints what the command costs, and one line per stage: what it is, and comes from."""
    rows = [("stage", "size", "model", "parameters", "steps", "FLOPs", "starts from")]
    models = sizes.get_size(config.size).models
    for stage in config.wanted:
        parameters = kf.models.parameter_count(run.stage_config(stage))
        steps = config.settings[stage.name].steps
        source = " + ".join(map(stage.written, stage.parents)) or "random weights"
        model = (stage.name, stage.size, models[stage.size])
        flops = f"{run.outlook.works[stage.name].flops:.4g}"
        rows.append((*model, f"{parameters:,}", f"{steps:,}", flops, source))
    names = ", ".join(plan.name for plan in config.plans)
    places = " and ".join(map(str, run.texts))
    print(f"Plan {names} at size {config.size}: {run.outlook.cost} Tokens from {places}.")
    for line in aligned(rows):
        print(f"  {line}", flush=True)
