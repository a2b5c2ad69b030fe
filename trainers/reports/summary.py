"""The results of a run in plain words."""

import statistics

from trainers.data.manifest import MANY_PASSES, MUCH_UNKNOWN
from trainers.data.objectives import PREFIX_LM, SPAN_CORRUPTION
from trainers.plans import beyond, gains
from trainers.reports import guards, headlines, numbers
from trainers.reports.comparisons import BASELINE, SELF_FUSION, ancestors, variations
from trainers.runs import passes
from trainers.runs.history import RESTARTED, STACKED
from trainers.runs.workdir import RUN_FILE

_CORPORA = {
    None: f"a corpus that {RUN_FILE} does not name",
    "c4": "C4 (corpus “c4”)",
    "text": "text files (corpus “text”)",
}
# Measures of compute, and their names in sentences.
_MEASURES = {"flops": "the FLOPs", "device_seconds": "the device time"}


def summarize(run, comparisons):
    """The summary of a run and of what `compare(run)` gave, as paragraphs."""
    opening = f"T5 models were trained on {corpus(run.settings)}{objective(run.settings)}."
    opening += unknown(run.settings)
    if second := run.settings.get("second_text"):
        opening += f" A second text is {corpus(second)}.{unknown(second)}"
    opening += repeated_text(run)
    told = headlines.headlines(run, comparisons)
    plans = [_plan(run, headline) for headline in told] or [_nothing_compared(run)]
    if len(plans) == 1:
        opening, plans = f"{opening} {plans[0]}", []
    closing = f"{_unfinished(run)}Learning rates: {tuning(run.settings)} {_repeats(run)}"
    return (opening, *plans, closing)


def corpus(settings):
    """The corpus of a run, in words."""
    name, path = settings.get("corpus"), settings.get("corpus_path")
    if name == "text" and path:
        return f"the text of {path} (corpus “text”)"
    if name == "docs":
        note = settings.get("corpus_note")
        if note == "":
            return "the English docstrings of the project's pinned packages (corpus “docs”)"
        other = f", {note}" if note else ""
        return f"the English docstrings of installed packages (corpus “docs”{other})"
    return _CORPORA.get(name, f"the corpus “{name}”")


def unknown(settings):
    """The share of unknown tokens in a sentence after a space; empty where it was not counted.

    Example:
        >>> unknown({"corpus_unknown": 0.0})
        ' The vocabulary knows all of its tokens.'
    """
    share = settings.get("corpus_unknown")
    if share is None:
        return ""
    if not share:
        return " The vocabulary knows all of its tokens."
    warning = "" if share <= MUCH_UNKNOWN else ", so that it does not fit the text"
    return f" {100 * share:.2g} % of its tokens are unknown to the vocabulary{warning}."


def repeated_text(run):
    """A sentence about stages that go through a text many times; empty where none does."""

    def facts_of(name):
        stage = run.stages.get(name)
        return stage and {**vars(stage), "steps": stage.planned_steps}

    read = {name: passes.passes(name, facts_of) for name in run.stages}
    many = {name: max(counts.values(), default=0.0) for name, counts in read.items()}
    many = {name: count for name, count in many.items() if count > MANY_PASSES}
    if not many:
        return ""
    most = max(many, key=many.__getitem__)
    words = passes.in_words(read[most], bool(run.stages[most].sources))
    others = f"; {len(many) - 1} more go over {MANY_PASSES} times" if len(many) > 1 else ""
    return (
        f" {most} goes {words}{others}. A repeated text is learned by heart, and validation losses "
        "rise where a pass begins: small differences of ends may be of that kind."
    )


def objective(settings):
    """The pretraining task of a run in words, after a comma; empty where run.json has none.

    Example:
        >>> objective({"objective": "prefix_lm"})
        ', objective prefix LM: the second half of a text is predicted from the first'
    """
    name = settings.get("objective")
    if name == SPAN_CORRUPTION:
        density, length = settings.get("noise_density"), settings.get("mean_span_length")
        spans = (
            f": {density:.0%} of the tokens, in spans of {length:g}" if density and length else ""
        )
        return f", objective span corruption{spans}".replace("%", " %")
    if name == PREFIX_LM:
        return ", objective prefix LM: the second half of a text is predicted from the first"
    return f", objective {name}" if name else ""


def tuning(settings):
    """The sweep that chose the learning rates, or that none did."""
    chosen = str(settings.get("tuning") or "").strip()
    if chosen:
        return f"{chosen.rstrip('.')}."
    return (
        "no sweep chose them. An untuned baseline flatters every way of growing a model, so these "
        "ratios say little."
    )


def _plan(run, headline):
    """A plan: the stages that it comes from, and its result against the baseline."""
    stage = run.stages[headline.repeats[0].plan]
    sources = [run.stages.get(name) for name in ancestors(run, stage.name)]
    ends = f" {headline.ends}" if headline.ends else ""
    return f"{_origin(stage, sources)} {_result(run, headline)}{ends}"


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
    names = " and ".join(stage.sources)
    if stage.init == STACKED:
        return f"{stage.name}: the layers of {names} were stacked, and the result{wide} {trained}."
    if stage.init == RESTARTED:
        return f"{stage.name}: the model of {names} was taken over and {trained}."
    return f"{stage.name}: the T5 models {names} were fused, and the result{wide} {trained}."


def _result(run, headline):
    """The ratios of a plan, or why none is told as its result."""
    if headline.stands:
        return _saving(run, headline)
    without = [c for c in headline.repeats if c.flops_ratio is None]
    why = {c.plan: "; ".join(guard.clause for guard in c.struck) or c.reason for c in without}
    if not headline.struck:
        return f"It cannot be compared with the baseline: {without[0].reason}."
    if len(headline.repeats) == 1:
        return f"The goal is {_goal(run, headline)}. No ratio is given: {why[without[0].plan]}."
    ratios = headline.ratios("flops")
    seeds = f"{len(ratios) or 'none'} of {numbers.seeds(len(headline.repeats))}"
    told = f" ({numbers.spread(ratios, numbers.ratio)} of the baseline's FLOPs)" if ratios else ""
    reasons = "; ".join(f"{stage}: {clause}" for stage, clause in why.items())
    return (
        f"The goal is {_goal(run, headline)}. It has a ratio with {seeds}{told}, so there is no "
        f"headline. {reasons}."
    )


def _goal(run, headline):
    goals = [c.accuracy for c in headline.repeats if c.accuracy is not None]
    low, high = numbers.percent(min(goals)), numbers.percent(max(goals))
    ends = f"{low} %" if low == high else f"{low} to {high} %"
    steps = numbers.steps(run.stages[BASELINE].steps)
    return f"the baseline's final accuracy ({ends}, from scratch in {steps})"


def _saving(run, headline):
    seeds, ratios = len(headline.repeats), {field: headline.ratios(field) for field in _MEASURES}

    def told(field):
        interval = headlines.interval_text(ratios[field])
        text = numbers.spread(ratios[field], numbers.ratio)
        return f"{text} ({interval})" if interval else text

    text = (
        f"{f'With {seeds} of {numbers.seeds(seeds)} it' if seeds > 1 else 'It'} reached "
        f"{_goal(run, headline)} with {told('flops')} of the baseline's FLOPs and "
        f"{told('device_seconds')} of its device-seconds, every stage counted. "
        f"{_verdict('On average it' if seeds > 1 else 'So it', ratios)}"
    )
    # Rounded, so that 0.95 counts as 1.05 does.
    near_1 = [round(abs(1 - values[0]), 6) <= guards.WOBBLE for values in ratios.values()]
    if seeds == 1 and any(near_1):
        text += (
            f" One seed does not tell a ratio within {100 * guards.WOBBLE:g} % of 1 from 1: "
            "repeat the run (--repeats=5)."
        )
    intervals = {field: headlines.paired_interval(values) for field, values in ratios.items()}
    with_1 = [_MEASURES[field] for field, ends in intervals.items() if ends and _has_1(*ends)]
    if with_1:
        of = " and of ".join(with_1)
        text += f" The interval of {of} contains 1: these seeds do not show that the arms differ."
    return text


def _has_1(low, high):
    return low <= 1 <= high


def _verdict(subject, ratios):
    # As printed: a ratio of 0.997 reads "1.00" and is called no saving.
    means = (statistics.fmean(ratios[field]) for field in _MEASURES)
    flops, seconds = (round(100 * (1 - round(mean, 2))) for mean in means)
    if max(flops, seconds) <= 0:
        return f"{subject} saved nothing here: training from scratch cost no more."
    if seconds <= 0:
        return f"{subject} saved {flops} % of the FLOPs, but no device time."
    if flops <= 0:
        return f"{subject} saved {seconds} % of the device time, but no FLOPs."
    return f"{subject} saved {flops} % of the FLOPs and {seconds} % of the device time."


def _nothing_compared(run):
    if shown := [plan for plan in (gains.NAME, *beyond.NAMES) if run.experiment(plan)]:
        return f"Arms of plan {', '.join(shown)} are compared in a section of their own."
    if BASELINE not in run.stages:
        reason = "no stage named baseline is in this run"
    elif any(stage.sources for stage in run.stages.values()):
        reason = "no fused model has the baseline's size"
    else:
        reason = "no fused model is in this run"
    return f"Nothing can be compared: {reason}. Trained: {', '.join(run.stages)}."


def _unfinished(run):
    """A sentence about the stages that are running."""
    running = ", ".join(stage.name for stage in run.stages.values() if not stage.finished)
    return f"Still running, so provisional: {running}. " if running else ""


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
