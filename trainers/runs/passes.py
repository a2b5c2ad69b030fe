"""Passes of a stage through its texts, with those of the stages that its weights come from.

A fused model has learned what its sources read, and one that continues another what that one did.
"""

from collections.abc import Callable, Mapping

# Of a stage: `text_passes` of its own steps, `steps`, `sources` and `source_steps`.
Facts = Mapping[str, object]


def passes(
    name: str, facts_of: Callable[[str], Facts | None], step: int | None = None
) -> dict[str, float]:
    """Returns {text: how many times it was gone through} by a step of a stage, or its end.

    Of several sources the one counts that has read a text most. What is not known counts nothing.

    Args:
        name: of the stage.
        facts_of: from a stage's name to its facts; None where there are none.
        step: of the stage.
    """
    facts = facts_of(name)
    if facts is None:
        return {}
    share = min(1.0, step / facts["steps"]) if step is not None and facts["steps"] else 1.0
    taken = facts["source_steps"]
    before = [passes(source, facts_of, taken.get(source)) for source in facts["sources"]]
    own = {text: share * count for text, count in facts.get("text_passes", {}).items()}
    return {
        text: own.get(text, 0.0) + max((read.get(text, 0.0) for read in before), default=0.0)
        for text in dict.fromkeys(text for read in (own, *before) for text in read)
    }


def in_words(passes: Mapping[str, float], is_made: bool) -> str:
    """The text that was gone through most, and how often.

    Args:
        passes: what `passes` returned.
        is_made: whether the stage has sources.

    Example:
        >>> in_words({"first": 3.0, "second": 7.25}, True)
        '7.2 times through the second text, with what it comes from'
    """
    text = max(passes, key=passes.__getitem__)
    which = f"the {text} text" if len(passes) > 1 else "its text"
    return f"{passes[text]:.1f} times through {which}{', with what it comes from' * is_made}"
