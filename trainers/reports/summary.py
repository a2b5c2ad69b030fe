"""What a run shows, in plain words."""

import statistics

from trainers.reports import numbers, paper, repeats
from trainers.reports.comparisons import BASELINE, ancestors, variations

_CORPORA = {
    "docs": "the English docstrings of Python and of the installed packages (corpus “docs”)",
    "c4": "C4 (corpus “c4”)",
}


def summarize(run, comparisons):
    """The summary of a run.

    Args:
        run: a `RunHistory`.
        comparisons: what `compare(run)` gave.

    Returns:
        A tuple of paragraphs.
    """
    opening = f"T5 models were trained on {corpus(run.settings)}."
    arms = {}
    for comparison in comparisons:
        arms.setdefault(run.stages[comparison.plan].base, []).append(comparison)
    plans = [_plan(run, found) for found in arms.values()] or [_nothing_compared(run)]
    if len(plans) == 1:
        opening, plans = f"{opening} {plans[0]}", []
    closing = " ".join([*_unfinished(run), f"Learning rates: {tuning(run.settings)}", _spread(run)])
    return (opening, *plans, closing)


def corpus(settings):
    """The corpus of a run, in words."""
    name = settings.get("corpus")
    if name is None:
        return "a corpus that run.json does not name"
    if name == "text":
        path = settings.get("corpus_path")
        return f"the text of {path} (corpus “text”)" if path else "text files (corpus “text”)"
    return _CORPORA.get(name, f"the corpus “{name}”")


def tuning(settings):
    """Which sweep chose the learning rates, or that none did."""
    chosen = str(settings.get("tuning") or "").strip()
    if chosen:
        return f"{chosen.rstrip('.')}."
    return (
        "no sweep chose them. An untuned baseline flatters every way of growing a model, so these "
        "ratios say little."
    )


def _plan(run, found):
    stage = run.stages[found[0].plan]
    sources = [run.stages.get(name) for name in ancestors(run, stage.name)]
    if len(found) > 1:
        return f"{_origin(stage, sources)} {_outcomes(found)}"
    return f"{_origin(stage, sources)} {_outcome(run, stage, found[0])}"


def _outcomes(found):
    """What the repeats of a plan came to."""
    goals = [c.accuracy for c in found if c.accuracy is not None]
    reached = [c for c in found if c.flops_ratio is not None]
    goal = (
        f"the final accuracy of the baseline with the same seed ({numbers.percent(min(goals))} to "
        f"{numbers.percent(max(goals))} %)"
        if goals
        else "the baseline's final accuracy"
    )
    if not reached:
        reason = found[0].reason
        why = "" if reason.startswith("not reached") else f": {reason}"
        return f"With none of {repeats.seeds(len(found))} it reached {goal}{why}."
    flops = [c.flops_ratio for c in reached]
    seconds = [c.device_seconds_ratio for c in reached]
    if len(reached) < len(found):
        verdict = "The other seeds did not reach it, so this is no saving to count on."
    else:
        verdict = _verdict(statistics.fmean(flops), statistics.fmean(seconds)).replace(
            "So it", "On average it"
        )
    return (
        f"With {len(reached)} of {repeats.seeds(len(found))} it reached {goal}, for "
        f"{repeats.spread(flops, numbers.ratio)} of the baseline's FLOPs and "
        f"{repeats.spread(seconds, numbers.ratio)} of its device-seconds, every stage counted. "
        f"{verdict}"
    )


def _origin(stage, sources):
    trained = f"was trained on for {numbers.count(stage.steps)} steps"
    if not stage.finished:
        trained = f"has been trained on for {numbers.count(stage.steps)} steps so far"
    if None in sources:
        return f"{stage.name} {trained}; not all stages that it was fused from are in this folder."
    small = sources[0]
    steps = f"trained for {numbers.count(small.steps)} steps"
    size = f" with {numbers.count(small.parameters)} parameters" if small.parameters else ""
    wide = f", now with {numbers.count(stage.parameters)} parameters," if stage.parameters else ""
    if stage.init == "self_fusion" and len(sources) == 1:
        made = f"a small T5{size} was {steps}, fused with itself, and"
    else:
        names = " and ".join(source.name for source in sources)
        made = f"the T5 models {names} were fused, and the result"
    return f"{stage.name}: {made}{wide} {trained}."


def _outcome(run, stage, comparison):
    baseline = run.stages[BASELINE]
    if comparison.accuracy is None or comparison.before is None:
        return f"It cannot be compared with the baseline: {comparison.reason}."
    goal = (
        f"the baseline's final accuracy ({numbers.percent(comparison.accuracy)} %, from scratch in "
        f"{numbers.count(baseline.steps)} steps)"
    )
    if comparison.crossing is None:
        best = max((p.accuracy for p in stage.curve if p.accuracy is not None), default=None)
        best = "it has no evaluation" if best is None else f"its best is {numbers.percent(best)} %"
        reached = "It did not reach" if stage.finished else "It has not yet reached"
        return f"{reached} {goal}: {best}."
    if comparison.flops_ratio is None:
        return f"It cannot be compared with the baseline: {comparison.reason}."
    flops = numbers.ratio(comparison.flops_ratio)
    seconds = numbers.ratio(comparison.device_seconds_ratio)
    return (
        f"It reached {goal} with {flops} of the baseline's FLOPs and {seconds} of its "
        f"device-seconds, every stage counted. "
        f"{_verdict(comparison.flops_ratio, comparison.device_seconds_ratio)}"
    )


def _verdict(flops, seconds):
    # As printed: a ratio of 0.997 reads "1.00" and is called no saving.
    flops, seconds = round(flops, 2), round(seconds, 2)
    if flops < 1 and seconds < 1:
        return f"So it saved {_less(flops)} of the FLOPs and {_less(seconds)} of the device time."
    if flops >= 1 and seconds >= 1:
        return "So it saved nothing here: training from scratch was no dearer."
    kind, other = ("FLOPs", "device time") if flops < 1 else ("device time", "FLOPs")
    return f"So it saved {kind}, but no {other}."


def _less(ratio):
    return f"{100 * (1 - ratio):.0f} %"


def _nothing_compared(run):
    fused = [stage for stage in run.stages.values() if stage.sources]
    if BASELINE not in run.stages:
        what = "there is no baseline in this run"
    elif not fused:
        what = "no fused model is in this run"
    else:
        what = "no fused model has the baseline's size"
    return f"Nothing can be compared: {what}. Trained: {', '.join(run.stages)}."


def _unfinished(run):
    running = [stage.name for stage in run.stages.values() if not stage.finished]
    absent = [
        plan for plan in (BASELINE, *(row.plan for row in paper.TABLE_1)) if plan not in run.stages
    ]
    sentences = []
    if running:
        sentences.append(f"Still running, so provisional: {', '.join(running)}.")
    if absent:
        sentences.append(f"Not run: {', '.join(absent)}.")
    return sentences


def _spread(run):
    if run.repeat_count > 1:
        once = [name for name in _shown(run) if len(run.repeats_of(name)) == 1]
        also = f" Trained with one seed only: {', '.join(once)}." if once else ""
        return (
            f"± is the population standard deviation over {repeats.seeds(run.repeat_count)}, "
            f"which is few.{also}"
        )
    return (
        "Each stage was trained once, so the spread over seeds is not known from this run alone."
        if len(run.stages) > 1
        else "It was trained once."
    )


def _shown(run):
    """Names of the stages, each once, but for those of plans that vary one."""
    names = dict.fromkeys(stage.base for stage in run.stages.values())
    return [name for name in names if name not in variations(run)]
