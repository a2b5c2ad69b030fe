"""The results of a run in plain words."""

import statistics

from trainers.reports import numbers, paper
from trainers.reports.comparisons import BASELINE, SELF_FUSION, ancestors, variations
from trainers.runs.workdir import RUN_FILE

_CORPORA = {
    None: f"a corpus that {RUN_FILE} does not name",
    "docs": "the English docstrings of Python and of the installed packages (corpus “docs”)",
    "c4": "C4 (corpus “c4”)",
    "text": "text files (corpus “text”)",
}


def summarize(run, comparisons):
    """The summary of a run and of what `compare(run)` gave, as paragraphs."""
    arms = {}
    for comparison in comparisons:
        arms.setdefault(run.stages[comparison.plan].base, []).append(comparison)
    opening = f"T5 models were trained on {corpus(run.settings)}."
    plans = [_plan(run, repeats) for repeats in arms.values()] or [_nothing_compared(run)]
    if len(plans) == 1:
        opening, plans = f"{opening} {plans[0]}", []
    closing = f"{_unfinished(run)}Learning rates: {tuning(run.settings)} {_repeats(run)}"
    return (opening, *plans, closing)


def corpus(settings):
    """The corpus of a run, in words."""
    name, path = settings.get("corpus"), settings.get("corpus_path")
    if name == "text" and path:
        return f"the text of {path} (corpus “text”)"
    return _CORPORA.get(name, f"the corpus “{name}”")


def tuning(settings):
    """The sweep that chose the learning rates, or that none did."""
    chosen = str(settings.get("tuning") or "").strip()
    if chosen:
        return f"{chosen.rstrip('.')}."
    return (
        "no sweep chose them. An untuned baseline flatters every way of growing a model, so these "
        "ratios say little."
    )


def _plan(run, repeats):
    """A plan: the stages that it comes from, and its result against the baseline."""
    stage = run.stages[repeats[0].plan]
    sources = [run.stages.get(name) for name in ancestors(run, stage.name)]
    return f"{_origin(stage, sources)} {_result(run, stage, repeats)}"


def _origin(stage, sources):
    steps = numbers.steps(stage.steps)
    if stage.finished:
        trained = f"was trained on for {steps}"
    else:
        trained = f"has been trained on for {steps} so far"
    if None in sources:
        return f"{stage.name} {trained}; not all stages that it was fused from are in this folder."
    wide = f", now with {numbers.count(stage.parameters)} parameters," if stage.parameters else ""
    if stage.init == SELF_FUSION and len(sources) == 1:
        small = sources[0]
        size = f" with {numbers.count(small.parameters)} parameters" if small.parameters else ""
        made = f"a small T5{size} was trained for {numbers.steps(small.steps)}, fused with itself,"
        return f"{stage.name}: {made} and{wide} {trained}."
    names = " and ".join(source.name for source in sources)
    return f"{stage.name}: the T5 models {names} were fused, and the result{wide} {trained}."


def _result(run, stage, repeats):
    reached = [c for c in repeats if c.flops_ratio is not None]
    goals = [c.accuracy for c in repeats if c.accuracy is not None]
    reason, several = repeats[0].reason, len(repeats) > 1
    if not goals or (not reached and not reason.startswith("not reached")):
        return f"It cannot be compared with the baseline: {reason}."
    low, high = numbers.percent(min(goals)), numbers.percent(max(goals))
    ends = f"{low} %" if low == high else f"{low} to {high} %"
    steps = numbers.steps(run.stages[BASELINE].steps)
    goal = f"the baseline's final accuracy ({ends}, from scratch in {steps})"
    seeds = f"With {len(reached) or 'none'} of {numbers.seeds(len(repeats))} it"
    if not reached:
        best = max((at.accuracy for at in stage.curve if at.accuracy is not None), default=None)
        best = "it has no evaluation" if best is None else f"its best is {numbers.percent(best)} %"
        if several:
            return f"{seeds} reached {goal}."
        return f"It {'did not reach' if stage.finished else 'has not yet reached'} {goal}: {best}."
    flops = [c.flops_ratio for c in reached]
    seconds = [c.device_seconds_ratio for c in reached]
    verdict = "The other seeds did not reach it, so this saving is not reliable."
    if len(reached) == len(repeats):
        subject = "On average it" if several else "So it"
        verdict = _verdict(subject, statistics.fmean(flops), statistics.fmean(seconds))
    return (
        f"{seeds if several else 'It'} reached {goal} with "
        f"{numbers.spread(flops, numbers.ratio)} of the baseline's FLOPs and "
        f"{numbers.spread(seconds, numbers.ratio)} of its device-seconds, every stage counted. "
        f"{verdict}"
    )


def _verdict(subject, flops, seconds):
    # As printed: a ratio of 0.997 reads "1.00" and is called no saving.
    saved = [round(100 * (1 - round(ratio, 2))) for ratio in (flops, seconds)]
    if max(saved) <= 0:
        return f"{subject} saved nothing here: training from scratch cost no more."
    if saved[1] <= 0:
        return f"{subject} saved {saved[0]} % of the FLOPs, but no device time."
    if saved[0] <= 0:
        return f"{subject} saved {saved[1]} % of the device time, but no FLOPs."
    return f"{subject} saved {saved[0]} % of the FLOPs and {saved[1]} % of the device time."


def _nothing_compared(run):
    if BASELINE not in run.stages:
        reason = "there is no baseline in this run"
    elif any(stage.sources for stage in run.stages.values()):
        reason = "no fused model has the baseline's size"
    else:
        reason = "no fused model is in this run"
    return f"Nothing can be compared: {reason}. Trained: {', '.join(run.stages)}."


def _unfinished(run):
    """Sentences about the stages that are running, and those of the paper that were not run."""
    plans = (BASELINE, *(row.plan for row in paper.TABLE_1))
    running = ", ".join(stage.name for stage in run.stages.values() if not stage.finished)
    absent = ", ".join(plan for plan in plans if plan not in run.stages)
    texts = ("Still running, so provisional", running), ("Not run", absent)
    return "".join(f"{text}: {names}. " for text, names in texts if names)


def _repeats(run):
    if len(run.stages) == 1:
        return "It was trained once."
    if run.repeat_count == 1:
        return "Each stage was trained once, so this run does not show the spread over seeds."
    names = dict.fromkeys(stage.base for stage in run.stages.values())
    once = [n for n in names if len(run.repeats_of(n)) == 1 and n not in variations(run)]
    also = f" Trained with one seed only: {', '.join(once)}." if once else ""
    return (
        f"± is the population standard deviation over {numbers.seeds(run.repeat_count)}, which is "
        f"few.{also}"
    )
