"""Measuring in turn: every run once per round, in alternating order."""

from benchmarks import _rounds


def test_the_order_alternates():
    calls = []

    def run(name):
        calls.append(name)
        return float(len(calls))

    figures = _rounds.in_turn([lambda: run("a"), lambda: run("b")], 3)
    assert "".join(calls) == "baabba"
    assert figures == [[2.0, 3.0, 6.0], [1.0, 4.0, 5.0]]
    assert _rounds.ratios(*figures) == [2.0, 0.75, 1.2]


def test_a_line_has_median_and_spread():
    text = _rounds.line("fusion", [1.0, 4.0, 2.0], "s", decimals=1)
    assert text.split() == ["fusion", "median", "2.0", "min", "1.0", "max", "4.0", "s"]
