"""The paper's figures: as printed, and as contradictory as we say."""

import re

import pytest

from trainers.reports import paper


def hours(text):
    """Adds up the terms of a printed cost: "2 · 16h + 37.4h" → 69.4."""
    total = 0.0
    for term in text.split("+"):
        factor, _, value = term.rpartition("·")
        total += float(factor or 1) * float(value.strip().removesuffix("h"))
    return total


def test_costs_add_up_except_where_a_note_says_not():
    for row in paper.TABLE_1:
        terms, _, printed = row.cost.partition(" = ")
        assert hours(printed) == row.hours
        assert (hours(terms) == pytest.approx(row.hours)) == (not row.note), row.plan
    assert hours("2 · 16h + 37.4h") == pytest.approx(69.4)
    for row in paper.TABLE_2:
        total = hours(f"{row.fusion[1]} + {row.post_fusion[1]}")
        assert (total == pytest.approx(row.hours)) == (not row.note), row.plan
    assert pytest.approx(0.82, abs=0.005) == paper.SELF_FUSION_SHARE


def test_every_printed_figure_is_in_the_paper(shared_dir):
    text = (shared_dir / "paper" / "deep_fusion.md").read_text(encoding="utf-8").replace("*", "")
    text = re.sub("</?b>", "", text)
    for row in paper.TABLE_1:
        assert f"{row.model}\t{row.loss}\t{row.accuracy}\t{row.cost}" in text
    for row in paper.TABLE_2:
        fusion, post = " ".join(row.fusion), " ".join(row.post_fusion)
        assert f"{row.model}\t{fusion}\t{post}\t{row.cost}\t{row.accuracy}" in text
