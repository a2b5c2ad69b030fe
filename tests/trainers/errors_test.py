"""Errors from their three parts, and the checks that many settings share."""

import pytest

from trainers.errors import NotFinite, UserError, check_at_least, check_choice, check_new_file


def test_the_three_parts_are_one_line():
    error = UserError(expected="a file", received="path='/tmp'", do="Name a file")
    assert str(error) == "Expected a file. Received: path='/tmp'. Name a file."
    assert NotFinite(expected="more", step=3).step == 3


@pytest.mark.parametrize("value", [0, -1, 0.5, "2", True])
def test_integers_below_the_minimum_are_refused(value):
    with pytest.raises(UserError, match=f"steps to be .*at least 1. Received: steps={value!r}"):
        check_at_least(1, steps=value)


def test_what_is_large_enough_or_not_given_passes():
    check_at_least(1, steps=1, repeats=None)
    check_at_least(0.5, rate=0.5, scale=1)
    with pytest.raises(UserError, match="rate=0.25"):
        check_at_least(0.5, rate=0.25)


def test_a_choice_lists_the_others():
    check_choice(("rule", "property"), norm="rule", other=None)
    with pytest.raises(UserError, match="norm to be one of rule, property. Received: norm='x'"):
        check_choice(("rule", "property"), norm="x")


def test_a_new_file_has_a_folder_and_no_predecessor(tmp_path):
    check_new_file(None)
    check_new_file(str(tmp_path / "new"))
    for path, words in ((tmp_path, "which exists"), (tmp_path / "a" / "b", "Make the folder")):
        with pytest.raises(UserError, match=words):
            check_new_file(str(path))
