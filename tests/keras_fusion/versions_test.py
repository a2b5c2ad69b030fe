import importlib.metadata
import platform

import keras

import keras_fusion
from keras_fusion.versions import main, versions


def test_the_report_names_python_the_backend_and_the_installed_packages():
    named = versions()
    assert named["python"] == platform.python_version()
    assert named["backend"] == keras.backend.backend()
    assert named["keras-fusion"] == keras_fusion.__version__
    assert named["keras"] == importlib.metadata.version("keras")
    assert "cpu" in named["devices"].lower()


def test_the_module_prints_one_line_for_each(capsys):
    main()
    lines = capsys.readouterr().out.splitlines()
    assert f"backend: {keras.backend.backend()}" in lines
    assert len(lines) == len(versions())
