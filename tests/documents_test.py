"""The Python of the documents runs, each document from top to bottom in one namespace."""

import ast
import contextlib
import functools
import io
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from keras_fusion.errors import DOCS, PLEASE_REPORT, docs_page
from tests import models_table
from tests.requirements import settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Python that stands in no block of its own and is not run: the line it starts with, and why.
NOT_RUN = {
    ("README.md", "kf.self_fuse(model, 2, noise=0.1)"): "models that the reader has, and commands",
}


def blocks(path):
    """`(language, text)` of a page's fenced blocks, and of indented ones, whose language is ""."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
    text = path.read_text("utf-8")
    indented = re.findall(r"^(?: {4}.*\n+)+", fence.sub("", text), re.M)
    return [*fence.findall(text), *(("", block) for block in indented)]


def python_blocks(path):
    """The texts of a page's blocks of Python."""
    return [text for language, text in blocks(path) if language == "python"]


@functools.cache
def run_file(path):
    """Runs the Python blocks of a page; returns the names they define, and `printed`."""
    where, printed = str(path.relative_to(ROOT)), io.StringIO()
    names = {"__name__": where}
    with contextlib.redirect_stdout(printed):
        for block in python_blocks(path):
            exec(compile(block, where, "exec"), names)
    return names | {"printed": printed.getvalue()}


def run(page):
    """`run_file` of a page of docs/."""
    return run_file(ROOT / "docs" / f"{page}.md")


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if python_blocks(path)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_python_of_a_page_runs(path):
    run_file(path)


def test_python_that_is_not_run_has_a_reason():
    python = re.compile(r"^\s*(?:import \w|from \w+ import|kf\.|\w+ = kf\.)", re.M)
    unmarked = {
        (str(path.relative_to(ROOT)), re.split(r"  #|\n", text.strip())[0].strip())
        for path in PAGES
        for language, text in blocks(path)
        if language != "python" and python.search(text)
    }
    assert unmarked == NOT_RUN.keys() and all(NOT_RUN.values())


@pytest.fixture(scope="module")
def names():
    """The names that docs/plugin.md defines."""
    return run("plugin")


def test_the_first_page_fuses_two_networks_of_16_and_24_units():
    assert run("index")["big"].layers[0].units == 40


def test_the_readme_fuses_two_networks_of_16_and_24_units():
    assert run_file(ROOT / "README.md")["big"].layers[0].units == 40


def test_how_fusion_works_shows_the_three_shapes():
    assert "[0. 0. 2.]" in run("how_it_works")["printed"]


def test_stock_models_and_a_class_of_ones_own():
    names = run("models")
    a, b, exact = (names[name] for name in ("a", "b", "exact"))
    assert {type(names[name]) for name in ("wide", "mixed", "longer")} == {type(a)}
    feeds = {"token_ids": np.arange(10).reshape(2, 5), "padding_mask": np.ones((2, 5), int)}
    mean = (np.asarray(a(feeds)) + np.asarray(b(feeds))) / 2
    np.testing.assert_allclose(exact(feeds), mean, atol=1e-5)
    np.testing.assert_allclose(names["wide"](feeds), a(feeds), atol=1e-5)
    reader, second, both = (names[name] for name in ("reader", "second", "both"))
    assert type(names["wide_reader"]) is names["Reader"] and isinstance(both, names["Reader"])
    tokens = feeds["token_ids"]
    np.testing.assert_allclose(names["wide_reader"](tokens), reader(tokens), atol=1e-5)
    mean = (np.asarray(reader(tokens)) + np.asarray(second(tokens))) / 2
    np.testing.assert_allclose(both(tokens), mean, atol=1e-5)


def test_a_folder_is_fused():
    names = run("folders")
    assert names["plan"].is_exact and (names["folder"] / "wide" / "README.md").exists()


def test_the_table_of_stock_models_is_what_was_measured():
    document = models_table.DOCUMENT.read_text(encoding="utf-8")
    assert models_table.render(models_table.read()) in document


def test_the_first_model_is_as_wide_as_both_and_stays_sequential(names):
    keras, big = names["keras"], names["big"]
    assert isinstance(big, keras.Sequential)
    assert big.layers[2].units == 10 and big.output_shape == (None, 10)
    assert names["both"].output_shape == (None, 20)


def test_an_own_layer_takes_part(names):
    assert names["own"].layers[1].factor.shape == (7,)


def test_every_picture_is_there():
    text = (ROOT / "docs" / "plugin.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^]]*\]\((images/\w+\.svg)\)", text)
    assert len(pictures) == 3
    assert all((ROOT / "docs" / picture).is_file() for picture in pictures)


def test_the_pages_of_the_reference_list_the_public_names():
    """`python -m docs.api.pages` writes them."""
    texts = {path.name: path.read_text("utf-8") for path in (ROOT / "docs/api").glob("*.md")}
    assert texts == runpy.run_path(str(ROOT / "docs/api/pages.py"))["files"]()


def test_documents_and_examples_use_public_names():
    public = runpy.run_path(str(ROOT / "docs/api/pages.py"))["packages"]()
    library, used = public["index"], set()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.py")]:
        used |= set(re.findall(r"\bkf\.(\w+)(?:\.(\w+))?", path.read_text("utf-8")))
    assert ("fuse", "") in used and ("models", "T5") in used
    for first, second in used:
        assert first in library.__all__, f"kf.{first} is not public."
        if first in public and second:
            assert second in public[first].__all__, f"kf.{first}.{second} is not public."


def test_every_page_of_the_site_is_in_its_menu():
    menu = (ROOT / "mkdocs.yml").read_text("utf-8").partition("nav:")[2]
    files = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert files == set(re.findall(r": (\S+\.md)$", menu, re.M))


def sections(page):
    """The headings of a page of docs/, as links have them."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    headings = [re.sub(r"[^\w\s-]", "", line) for line in re.findall(r"^#+ (.*)$", text, re.M)]
    return {heading.strip().lower().replace(" ", "-") for heading in headings}


def test_every_section_that_a_message_names_is_there():
    named = {
        tuple(argument.value for argument in call.args if isinstance(argument, ast.Constant))
        for path in (ROOT / "keras_fusion").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "docs_page"
    }
    assert {("plugin", "layers-of-your-own"), ("faq", "report-a-bug")} < named
    for page, section in named:
        assert section in sections(page), f"docs/{page}.md has no section {section}."
    assert docs_page("faq", "report-a-bug") == f"{DOCS}/faq.md#report-a-bug" in PLEASE_REPORT


def test_messages_name_the_address_of_the_documentation():
    """The folder of the repository, as long as the project's description has no address."""
    assert DOCS == settings()["project"].get("urls", {}).get("Documentation", "docs")


def test_the_picture_of_gains_interpolates_between_ends_of_random_weights():
    pytest.importorskip("matplotlib")
    equal_compute = runpy.run_module("docs.images.gains")["equal_compute"]
    reference = {1: [2.7, 2.5], 4: [2.4]}
    assert equal_compute(2.6, reference) == pytest.approx(1)
    # Half of the way along the logarithm.
    assert equal_compute(2.5, reference) == pytest.approx(2)
    assert equal_compute(2.39, reference) is None
