"""The Python of the documents runs, each document from top to bottom in one namespace."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from tests import models_table

ROOT = Path(__file__).resolve().parent.parent


def run(page):
    """Runs the Python blocks of a page of docs/, and returns the names that they define."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    names = {"__name__": page}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(compile(block, f"docs/{page}.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def names():
    """The names that docs/plugin.md defines."""
    return run("plugin")


def test_the_first_page_fuses_two_networks_of_16_and_24_units():
    assert run("index")["big"].layers[0].units == 40


def test_how_fusion_works_shows_the_three_shapes(capsys):
    run("how_it_works")
    assert "[0. 0. 2.]" in capsys.readouterr().out


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
