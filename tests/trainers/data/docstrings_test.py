"""Docstrings: what is gathered from a source file, from which packages, in which order."""

import importlib.metadata

import pytest

from tests.requirements import pins, required
from trainers.data import docstrings
from trainers.data.docstrings import PINNED, PINNED_SHA256, Sources, module_documents
from trainers.errors import UserError

MODULE = '''"""The module, with one line."""

import nothing_that_exists

def outer():
    """Outer.

        Indented.
    """
    def inner():
        """Inner."""
    if True:
        class Kept:
            """In a branch."""
            async def method(self):
                """Asynchronous."""
    return """No docstring, however long this text may be."""

def repeated():
    """Outer.

        Indented.
    """
'''


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


def test_a_document_is_a_module(tmp_path):
    documents = module_documents([write(tmp_path, "a.py", MODULE)], 10_000)
    document = "The module, with one line.|Outer.|Indented.|Inner.|In a branch.|Asynchronous."
    assert documents == [document.replace("|", "\n\n")]


def test_a_docstring_comes_once(tmp_path):
    first = write(tmp_path, "a.py", '"""First."""\ndef f():\n    """Shared."""\n')
    second = write(tmp_path, "b.py", '"""Shared."""\ndef g():\n    """Second."""\n')
    third = write(tmp_path, "c.py", '"""Shared."""\n')
    assert module_documents([first, second, third], 10_000) == ["First.\n\nShared.", "Second."]


def test_files_that_do_not_parse_are_passed_over(tmp_path):
    files = [
        write(tmp_path, "a.py", '"""Python 2."""\nprint "text"\n'),
        write(tmp_path, "b.py", '"""Null."""\x00\n'),
        tmp_path / "missing.py",
        write(tmp_path, "c.py", '# coding: latin-1\n"""Grün."""\n', encoding="latin-1"),
        write(tmp_path, "d.py", '"""Surrogate \\ud800."""\n'),
        write(tmp_path, "e.py", "'''Other quotes.'''\n"),
    ]
    assert module_documents(files, 10_000) == ["Grün.", "Surrogate ?.", "Other quotes."]


def test_reading_stops_at_the_limit(tmp_path):
    files = [write(tmp_path, f"{i}.py", f'"""Text number {i}."""\n') for i in range(9)]
    assert len(module_documents(files, 30)) == 3  # of 14 bytes each


def test_garbage_collection_is_as_it_was(tmp_path):
    import gc

    assert gc.isenabled()
    module_documents([], 10)
    assert gc.isenabled()


def test_sources_can_be_restricted():
    sources = Sources(["Absl_Py"])
    assert sources.versions == {"absl-py": importlib.metadata.version("absl-py")}
    assert {name.split("/")[1] for name, _ in sources.files} == {"absl"}
    assert all(path.is_file() for _, path in sources.files)


def test_the_standard_library_is_a_package():
    names = [name for name, _ in Sources(["python"]).files]
    assert "python/argparse.py" in names
    assert not [name for name in names if "site-packages" in name or "/test/" in name]


def test_an_unknown_package_is_refused_with_close_names():
    with pytest.raises(UserError, match="such as numpy.*Received: packages=numpyy"):
        Sources(["numpyy"])


def test_a_package_without_a_record_has_no_files(monkeypatch, tmp_path):
    folder = tmp_path / "lonely-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: lonely\nVersion: 1.0\n")
    distributions = list(importlib.metadata.distributions(path=[str(tmp_path)]))
    monkeypatch.setattr(docstrings.importlib.metadata, "distributions", lambda: distributions)
    sources = Sources(["lonely"])
    assert (sources.versions, sources.files) == ({"lonely": "1.0"}, [])


def test_the_order_depends_on_names():
    sources = Sources(["absl-py"])
    once = sources.ordered()
    assert sorted(once) == sorted(path for _, path in sources.files)
    sources.files.reverse()
    assert sources.ordered() == once


def test_without_packages_those_that_the_project_pins_are_read():
    pinned = pins()
    assert {name: pinned[name][0] for name in PINNED} == PINNED, "Change PINNED_SHA256 with them."
    assert PINNED.keys() <= required("trainers").keys()
    assert Sources().versions.keys() == PINNED.keys()
    # Python below 3.12 has modules of numpy that later ones do not have.
    assert not [name for name, _ in Sources().files if "distutils/" in name]


@pytest.mark.slow
def test_the_text_of_the_pinned_packages_has_the_hash_that_is_recorded():
    sources = Sources()
    if sources.versions != PINNED:
        pytest.skip(f"Other versions are installed: {sources.versions}.")
    documents = module_documents(sources.ordered(), 16_000_000)
    assert sum(len(document.encode()) for document in documents) == 9_433_264
    assert docstrings.text_sha256(documents) == PINNED_SHA256


def test_the_hash_of_a_text_depends_on_its_words_and_their_order():
    sha256 = docstrings.text_sha256(["one two", "three"])
    assert sha256 == docstrings.text_sha256([" one\n two ", "three\n"])
    variants = (["one two three"], ["three", "one two"], ["one two"], ["onetwo", "three"])
    assert sha256 not in map(docstrings.text_sha256, variants)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"numpy": "9.9"}, "numpy 9.9 in place of 2.4.6"),
        ({"scipy": None, "python": "3.11.7"}, "without scipy, with python 3.11.7"),
        ({}, "the versions are the same, but not all that they say"),
        (
            {name: "1" for name in "abcdefgh"},
            "with a 1, with b 1, with c 1, with d 1, with e 1, with f 1, and 2 other differences",
        ),
    ],
)
def test_another_text_is_described(monkeypatch, changes, words):
    monkeypatch.setitem(docstrings.PINNED, "numpy", "2.4.6")
    versions = {name: v for name, v in (PINNED | changes).items() if v}
    said = docstrings.other_text(versions, "another")
    assert said == f"not the text of this version of the project: {words}"
    assert docstrings.other_text(versions, PINNED_SHA256) == ""
