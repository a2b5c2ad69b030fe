"""Metrics against values computed by hand, and the paper's averages from its own columns."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from glue import metrics, tasks
from glue.reports import published
from tests.glue.recorded import COLUMNS
from trainers.errors import UserError

YES, NO = "entailment", "not_entailment"


def sklearn_f1(targets, predictions):
    """F1 of class 1, where what is no class counts as the wrong one."""
    is_class = np.isin(predictions, (0, 1))
    predictions = np.where(is_class, predictions, 1 - targets)
    return sklearn.metrics.f1_score(targets, predictions, zero_division=0.0)


ORACLES = {
    "accuracy": sklearn.metrics.accuracy_score,
    "f1": sklearn_f1,
    "matthews": sklearn.metrics.matthews_corrcoef,
    "pearson": lambda *sides: scipy.stats.pearsonr(*sides)[0],
    "spearman": lambda *sides: scipy.stats.spearmanr(*sides)[0],
}


@pytest.mark.filterwarnings("ignore:A single label", "ignore:An input array is")
@pytest.mark.parametrize("name", metrics.METRICS)
@pytest.mark.parametrize("size", [2, 5, 40])
def test_scores_are_those_of_scikit_learn_and_scipy(name, size):
    """Of each draw, of one draw alone, and of all examples."""
    metric, rng = metrics.METRICS[name], np.random.default_rng(size)
    for _ in range(4):
        if name in ("pearson", "spearman"):
            targets, predictions = rng.integers(0, 26, (2, size)) / 5
        else:
            targets, predictions = rng.integers(0, 2, size), rng.integers(-1, 2, size)
        weights = rng.multinomial(size, np.full(size, 1 / size), 10)
        expected = [
            100 * ORACLES[name](np.repeat(targets, draw), np.repeat(predictions, draw))
            for draw in weights
        ]
        np.testing.assert_allclose(metric(targets, predictions, weights), expected, atol=1e-9)
        value = metric(targets, predictions, weights[0])
        assert value == pytest.approx(expected[0], abs=1e-9, nan_ok=True)
        whole = metric(targets, predictions)
        assert whole == pytest.approx(100 * ORACLES[name](targets, predictions), nan_ok=True)


def test_accuracy_counts_what_is_no_label_as_wrong():
    predictions = [YES, "Entailment", "entailment ", "", NO]
    assert metrics.score("rte", "validation", [YES, YES, YES, NO, NO], predictions) == {"rte": 40.0}


def test_f1_by_hand():
    """Two hits, one false alarm, one miss: F1 = 2·2 / (2·2 + 1 + 1) = 2/3; accuracy 3 of 5."""
    true = ["equivalent", "equivalent", "equivalent", "not_equivalent", "not_equivalent"]
    said = ["equivalent", "equivalent", "not_equivalent", "equivalent", "not_equivalent"]
    scores = metrics.score("mrpc", "validation", true, said)
    assert scores == pytest.approx({"mrpc_f1": 200 / 3, "mrpc_accuracy": 60.0})


def test_f1_takes_what_is_no_label_for_the_wrong_class():
    """One hit, a miss ("?" for 1) and a false alarm ("?" for 0): 2·1 / (2·1 + 1 + 1) = 1/2."""
    true = ["duplicate", "duplicate", "not_duplicate", "not_duplicate"]
    said = ["duplicate", "?", "?", "not_duplicate"]
    scores = metrics.score("qqp", "validation", true, said)
    assert scores == pytest.approx({"qqp_accuracy": 50.0, "qqp_f1": 50.0})


def test_f1_without_any_hit_is_zero():
    assert metrics.f1(np.array([1, 1]), np.array([-1, -1])) == 0
    assert metrics.f1(np.array([0, 0]), np.array([0, 0])) == 0


def test_matthews_by_hand():
    """TP 3, TN 2, FP 1, FN 2: (3·2 − 1·2) / sqrt(4·5·3·4) = 4 / sqrt(240)."""
    true = ["acceptable"] * 5 + ["unacceptable"] * 3
    said = ["acceptable"] * 3 + ["unacceptable"] * 4 + ["acceptable"]
    scores = metrics.score("cola", "validation", true, said)
    assert scores["cola"] == pytest.approx(100 * 4 / math.sqrt(240))


def test_matthews_has_a_third_class_for_what_is_no_label():
    """Of 4 right 2: c = 2, s = 4, t = (2, 2, 0), p = (1, 1, 2) in the general formula:
    (2·4 − (2 + 2)) / sqrt((16 − 6) · (16 − 8)) = 4 / sqrt(80)."""
    true, said = np.array([1, 1, 0, 0]), np.array([1, -1, -1, 0])
    assert metrics.matthews(true, said) == pytest.approx(100 * 4 / math.sqrt(80))


@pytest.mark.filterwarnings("error")
def test_matthews_of_one_answer_for_all_is_zero_without_a_warning():
    assert metrics.matthews(np.array([1, 0, 1]), np.array([1, 1, 1])) == 0
    assert metrics.matthews(np.array([1, 1]), np.array([1, 1])) == 0


def test_correlations_by_hand():
    """Targets 1, 2, 3, 4 and predictions 1, 3, 2, 5. Sums of products of deviations: 5.5, of
    squares 5 and 8.75; ranks 1, 3, 2, 4 give 1 − 6·2/60 = 0.8."""
    scores = metrics.score(
        "stsb", "validation", ["1.0", "2.0", "3.0", "4.0"], ["1.0", "3.0", "2.0", "5.0"]
    )
    assert scores["stsb_pearson"] == pytest.approx(100 * 5.5 / math.sqrt(5 * 8.75))
    assert scores["stsb_spearman"] == pytest.approx(80)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3.8", 3.8), ("4", 4.0), ("-2.5", -2.5), (" 1.0 ", 1.0), ("1e1", 10.0), ("7.2", 7.2),
        ("", -1.0), ("3,8", -1.0), ("4.0.", -1.0), ("five", -1.0), ("<unk>", -1.0), ("nan", -1.0),
        ("inf", -1.0),
    ],
)  # fmt: skip
def test_similarity_texts_are_read_as_python_reads_numbers(text, value):
    assert metrics.decode(tasks.find("stsb"), [text]).tolist() == [value]


@pytest.mark.filterwarnings("error")
def test_a_correlation_with_a_constant_is_not_defined():
    scores = metrics.score("stsb", "validation", ["1.0", "2.0", "4.0"], ["2.0", "2.0", "2.0"])
    assert all(math.isnan(value) for value in scores.values())


def test_mnli_has_a_score_for_each_split():
    for split, key in (("validation_matched", "mnli_m"), ("validation_mismatched", "mnli_mm")):
        assert metrics.score("mnli", split, ["neutral"], ["neutral"]) == {key: 100.0}
    with pytest.raises(UserError, match="validation_matched, .*split='validation'"):
        metrics.score("mnli", "validation", ["neutral"], ["neutral"])


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(UserError, match="predictions=1, targets=2"):
        metrics.score("rte", "validation", [YES, NO], [YES])
    with pytest.raises(UserError, match="predictions=0, targets=0"):
        metrics.score("rte", "validation", [], [])
    with pytest.raises(UserError, match="target='<unk>' of example 1"):
        metrics.score("rte", "validation", [YES, "<unk>"], [YES, YES])


@pytest.mark.parametrize("row", published.TABLE_7, ids=lambda row: f"{row.model}-{row.average}")
def test_the_papers_averages_come_out_of_its_own_columns(row):
    scores = dict(zip(COLUMNS, map(float, row.scores), strict=True))
    average = metrics.average(scores)
    # Not truncated; cut after two decimals it is what the paper prints.
    assert f"{math.floor(average * 100) / 100:.2f}" == row.average
    mean = sum(
        [
            scores["cola"],
            scores["sst2"],
            (scores["mrpc_f1"] + scores["mrpc_accuracy"]) / 2,
            (scores["stsb_pearson"] + scores["stsb_spearman"]) / 2,
            (scores["qqp_accuracy"] + scores["qqp_f1"]) / 2,
            (scores["mnli_m"] + scores["mnli_mm"]) / 2,
            scores["qnli"],
            scores["rte"],
        ]
    )
    assert average == pytest.approx(mean / 8, abs=1e-12)


def test_an_average_of_fewer_groups_is_over_whole_groups():
    scores = {"rte": 60.0, "mrpc_f1": 80.0, "mrpc_accuracy": 70.0, "mnli_m": 99.0}
    assert metrics.groups(scores) == ("mrpc", "rte")
    assert metrics.average(scores) == 67.5


def test_synthetic_tasks_and_wnli_do_not_count():
    scores = {"rte": 60.0, "wnli": 0.0, "synthetic_grammar": 100.0}
    assert metrics.average(scores) == 60.0
    with pytest.raises(UserError, match="at least one task.*scores=synthetic_grammar"):
        metrics.average({"synthetic_grammar": 100.0})


def test_an_undefined_score_makes_the_average_undefined():
    assert math.isnan(metrics.average({"rte": 60.0, "cola": math.nan}))


def test_a_key_that_no_task_has_is_refused():
    with pytest.raises(UserError, match="Expected score to be one of cola, sst2, .*score='mrpc'"):
        metrics.average({"rte": 60.0, "mrpc": 80.0})
    with pytest.raises(UserError, match="scores=none"):
        metrics.average({})
