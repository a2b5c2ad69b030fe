"""Folders that several modules fuse."""

import pytest

from tests.keras_fusion.interop import tiny_folders as tiny


@pytest.fixture
def gpt2(tmp_path):
    return tiny.write(tmp_path / "gpt2", tiny.GPT2, tiny.gpt2())


@pytest.fixture
def llamas(tmp_path):
    return [
        tiny.write(tmp_path / name, tiny.LLAMA, tiny.llama(seed)) for seed, name in enumerate("ab")
    ]
