"""Errors from their three parts, and the checks that many settings share."""

import pytest

from trainers.errors import NotFinite, UserError, check_choice, check_new_file, os_errors


def test_the_three_parts_are_one_line():
    error = UserError("a file", "path='/tmp'", "Name a file")
    assert str(error) == "Expected a file. Received: path='/tmp'. Name a file."
    assert str(UserError("No file.")) == "No file."
    assert NotFinite("more", step=3).step == 3


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


def test_an_error_of_the_file_system_names_the_file_and_the_way_out(tmp_path):
    with pytest.raises(UserError, match=r"Expected text. Received: a.txt \(No such file") as caught:
        with os_errors("text", "a.txt", "Check it"):
            (tmp_path / "a.txt").read_text()
    assert str(caught.value).endswith("Check it.")


def test_a_name_without_end_is_cut_and_what_to_do_stays():
    message = str(UserError("a field", f"name={'[' * 100_000}!", "Correct the file"))
    assert len(message) < 2000
    assert message.startswith("Expected a field. Received: name=[[[")
    assert message.endswith("[[! Correct the file.")
    assert len(str(UserError("x" * 100_000))) < 3000
