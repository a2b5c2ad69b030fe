"""Runs pytest on its arguments: the `main` of every py_test in BUILD.

python -m tests tests/keras_fusion/axes_test.py
"""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
