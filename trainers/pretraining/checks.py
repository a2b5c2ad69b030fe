"""Checks of what the flags of a pretraining run say together; a refusal is a `UserError` each.

Every function takes a `PretrainConfig`, whose fields are checked one by one already.
"""

import os

from trainers.errors import UserError
from trainers.plans import gains, settings, tuning
from trainers.plans.counts import check_counts
from trainers.plans.graph import fused_steps
from trainers.plans.options import READERS
from trainers.plans.settings import StageSettings


def check_plans(config):
    """Refuses options and texts for plans that are not asked for, and plans that lack theirs."""
    _check_plans_of_options(config)
    _check_second_text(config)


def check_stages(config):
    """Refuses stages that cannot start from their sources."""
    _check_continued(config)
    _check_grown(config)
    check_counts(config.stages, config.settings)
    _check_fused_steps(config)


def check_files(config):
    """Refuses files and folders that are not there, and a text that is given twice."""
    if config.corpus == "text" and not config.corpus_path and not config.data_dir:
        do = "Name a file or a quoted pattern such as 'texts/*.txt'"
        raise UserError("--corpus_path=FILES with --corpus=text", "corpus_path=None", do)
    if config.corpus_path and config.data_dir:
        received = f"corpus_path={config.corpus_path!r}, data_dir={config.data_dir!r}"
        do = "Leave out one of them"
        raise UserError("a text as files, or as the tokens of files", received, do)
    if config.vocabulary and not os.path.isfile(config.vocabulary):
        received = f"vocabulary={config.vocabulary!r}, which is no file"
        raise UserError("--vocabulary to be a SentencePiece model", received, "Check the path")
    for name in ("data_dir", "second_data_dir"):
        folder = getattr(config, name)
        if folder and not os.path.isdir(folder):
            received = f"{name}={folder!r}, which is no folder"
            expected = f"--{name} to be a folder that trainers.prepare wrote"
            raise UserError(expected, received, "Check the path")


def _check_plans_of_options(config):
    """Refuses lists for plans that are not asked for, and candidates around what is not found."""
    if {tuning.NAME, gains.NAME} <= {*config.plan}:
        raise UserError(
            f"--plan={gains.NAME} in a command of its own, whose sweeps are around what "
            f"--plan={tuning.NAME} has found",
            f"plan={','.join(config.plan)!r}",
            f"Give the command with --plan={tuning.NAME} first, then the other",
        )
    for name, plan in READERS.items():
        value = getattr(config.plan_options, name)
        if value is not None and plan not in config.plan:
            raise UserError(
                f"--{name} with --plan={plan}",
                f"{name}={value}, plan={','.join(config.plan)!r}",
                f"Add the plan, or leave out --{name}",
            )


def _check_second_text(config):
    """Refuses stages of a second text without one, and one without such stages."""
    flags = {name: getattr(config, name) for name in ("second_data_dir", "second_corpus_path")}
    received = ", ".join(f"{name}={value!r}" for name, value in flags.items())
    users = [s.name for s in config.stages if settings.takes_second(s, config.settings[s.name])]
    if users and not any(flags.values()):
        raise UserError(
            f"the second text of stage {users[0]!r}",
            received,
            "Add --second_corpus_path=FILES, or --second_data_dir=TOKENS",
        )
    if all(flags.values()):
        do = "Leave out one of them"
        raise UserError("a second text as files, or as the tokens of files", received, do)
    if any(flags.values()) and not users:
        raise UserError(
            "a second text where a stage is trained or evaluated on it",
            received,
            "Add --plan=domains or --text=STAGE:second, or leave it out",
        )


def _check_continued(config):
    """Refuses settings of stages that have those of their source, and sources with a decay."""
    for stage in filter(lambda stage: stage.is_continued, config.stages):
        (source,) = stage.sources
        if config.settings[source].decay_steps:
            raise UserError(
                f"stage {source!r} without a decay, as stage {stage.name!r} continues it",
                f"decay_steps={config.settings[source].decay_steps}",
                "Leave out --decay_steps, or the plan with that stage",
            )
        flags, names = config.stage_flags.items(), {stage.name, stage.base}
        given = [setting for setting, values in flags if not names.isdisjoint(values)]
        for setting in (*given, *stage.settings):
            if setting not in StageSettings.OF_CONTINUED:
                raise UserError(
                    f"only {', '.join(StageSettings.OF_CONTINUED)} of its own for stage "
                    f"{stage.name!r}, which continues {stage.sources[0]!r} as that ended",
                    setting,
                    f"Set it for {stage.sources[0]!r}",
                )


def _check_grown(config):
    """Refuses optimizer state of another optimizer, and theory of what it is not about."""
    for stage in config.stages:
        own_settings = config.settings[stage.name]
        if (
            config.theory_every
            and stage.is_fused
            and (own_settings.fill == "copies" or own_settings.grow not in (None, "all"))
        ):
            raise UserError(
                "--theory_every with blocks on the diagonal, along all axes",
                f"stage={stage.name!r} with fill={own_settings.fill!r}, grow={own_settings.grow!r}",
                "Leave out --theory_every, or that stage",
            )
        if (own_settings.optimizer_state or "fresh") == "fresh" or stage.is_continued:
            continue
        for source in stage.sources:
            source_optimizer = config.settings[source].optimizer
            if source_optimizer != own_settings.optimizer:
                raise UserError(
                    f"one optimizer of stage {stage.name!r}, whose optimizer state is grown, and "
                    "of its sources",
                    f"optimizer={own_settings.optimizer!r}, and {source_optimizer!r} of {source!r}",
                    "Give --optimizer_state=fresh, or one --optimizer",
                )


def _check_fused_steps(config):
    """Refuses stages that start from checkpoints that are never written."""
    fused_at = fused_steps(config.stages)
    for name, planned in config.settings.items():
        for step in fused_at.get(name, ()):
            if step > planned.steps or (step % planned.checkpoint_every and step < planned.steps):
                raise UserError(
                    f"starts from {name!r} at multiples of its checkpoint_every="
                    f"{planned.checkpoint_every} up to its {planned.steps} steps",
                    f"step={step}",
                    f"Change the step, or give --checkpoint_every={name}:STEPS",
                )
