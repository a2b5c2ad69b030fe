"""The notebooks of docs/notebooks/ are stored without outputs, are linked, and run."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# Pictures that each draws.
PICTURES = {"fuse_image_classifiers": 3, "grow_language_model": 1}


def test_every_notebook_is_linked_and_stored_without_outputs():
    assert {path.stem for path in NOTEBOOKS} == PICTURES.keys()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
        assert f"(docs/notebooks/{path.name})" in readme
        assert f"(notebooks/{path.name})" in start


def test_the_code_of_notebooks_is_in_the_style_of_the_project():
    """Lines fit the width of a notebook, and every name of the library is public."""
    import keras_fusion as kf

    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            assert all(hasattr(kf, name) for name in re.findall(r"\bkf\.(\w+)", text))
            assert cell["cell_type"] == "markdown" or max(map(len, text.split("\n"))) <= 100


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    import nbclient
    import nbformat

    book = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=1200, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[path.stem]
