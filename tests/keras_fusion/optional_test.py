import json
import sys

import pytest

from keras_fusion import FusionError, families, interop
from keras_fusion.optional import optional
from tests.keras_fusion.interop import tiny_folders

INSTALL = r"Received: .*{}.* Install it: pip install 'keras-fusion\[interop\]'"


def test_an_installed_package_is_its_module():
    assert optional("json") is json


def test_an_absent_package_is_refused_with_the_extra_that_has_it():
    with pytest.raises(FusionError, match=INSTALL.format("no_such_package")) as caught:
        optional("no_such_package")
    assert "\n" not in str(caught.value)


def test_folders_need_safetensors(monkeypatch, tmp_path):
    folder = tiny_folders.write(tmp_path / "gpt2", tiny_folders.GPT2, tiny_folders.gpt2())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(FusionError, match=INSTALL.format("safetensors")):
        interop.read_folder(folder)


def test_presets_need_keras_hub(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(FusionError, match=INSTALL.format("keras_hub")):
        families.load_preset(tmp_path)
