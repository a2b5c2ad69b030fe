"""The Python of the documents runs, each document from top to bottom in one namespace."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def names():
    """The names that docs/plugin.md defines."""
    text = (ROOT / "docs" / "plugin.md").read_text(encoding="utf-8")
    names = {"__name__": "plugin"}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(compile(block, "docs/plugin.md", "exec"), names)
    return names


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
