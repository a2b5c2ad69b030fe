"""Passes of weights through texts, along the stages that they come from."""

import pytest

from trainers.runs.passes import in_words, passes


def stage(sources=None, steps=10, **own):
    sources = sources or {}
    return {
        "text_passes": own,
        "steps": steps,
        "sources": list(sources),
        "source_steps": {name: at for name, at in sources.items() if at is not None},
    }


STAGES = {
    "a": stage(first=4.0),
    "b": stage({"a": 10}, first=2.0),  # continues it
    "c": stage(second=3.0),
    "unread": {name: value for name, value in stage().items() if name != "text_passes"},
    "fused": stage({"b": 5, "c": None}, first=0.5, second=0.5),
    "orphan": stage({"gone": 3, "unread": 3}, first=1.0),
}


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("a", None, {"first": 4.0}),
        ("a", 5, {"first": 2.0}),
        ("b", 5, {"first": 5.0}),
        ("fused", None, {"first": 5.5, "second": 3.5}),
        ("orphan", None, {"first": 1.0}),
        ("gone", None, {}),
    ],
)
def test_passes_add_up_along_sources(name, step, expected):
    assert passes(name, STAGES.get, step) == expected


def test_the_text_that_is_read_most_is_named_where_there_are_two():
    assert in_words({"first": 4.5}, False) == "4.5 times through its text"
    expected = "5.0 times through the second text, with what it comes from"
    assert in_words({"first": 4.0, "second": 5.0}, True) == expected
