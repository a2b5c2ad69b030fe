"""Table of docs/models.md: what fuses how, by the tests that measured it.

docs/models.json holds `{family: {library: {operation: gap or reason}}}`. A gap is the largest
difference between the logits of the result and the mean of the sources' logits, over the largest
logit; a reason is why the operation is refused. The slow tests compare their measurements with it,
and write them there with `--write_models`:

    python -m pytest tests/keras_fusion/families/matrix_test.py --write_models
    python -m tests.models_table        # writes the table into docs/models.md
"""

import fcntl
import json
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
FILE = DOCS / "models.json"
DOCUMENT = DOCS / "models.md"
LIBRARIES = {"keras_hub": "KerasHub", "transformers": "transformers"}
OPERATIONS = {
    "self_fusion": "self-fusion",
    "rule": "rule",
    "property": "property",
    "mlp": "MLP only",
    "heads": "heads only",
}
# Gaps of what is exact: rounding of single precision.
EXACT = 1e-5
_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->"


def read():
    """`{family: {library: {operation: gap or reason}}}`."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def note(family, library, operation, measured, write=False):
    """Compares a measurement with the table, or writes it there.

    Args:
        family: Name of the family, such as "GPT-2".
        library: One of `LIBRARIES`.
        operation: One of `OPERATIONS`.
        measured: A gap, or the reason of a refusal.
        write: Whether to write.

    Raises:
        AssertionError: The table has no such cell, or one of the other kind.
    """
    assert library in LIBRARIES and operation in OPERATIONS
    if write:
        measured = measured if isinstance(measured, str) else float(f"{measured:.1e}")
        FILE.touch()
        with FILE.open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            table = json.loads(file.read() or "{}")
            table.setdefault(family, {}).setdefault(library, {})[operation] = measured
            file.seek(0)
            file.truncate()
            json.dump(table, file, indent=1, sort_keys=True, ensure_ascii=False)
            file.write("\n")
        return
    table = read()
    noted = table[family][library][operation]
    assert isinstance(noted, str) == isinstance(measured, str), (noted, measured)
    if isinstance(noted, str):
        assert noted == measured


def render(table):
    """The table as Markdown, with the reasons below it."""
    reasons = {}
    lines = [
        "| family | library | " + " | ".join(OPERATIONS.values()) + " |",
        "|" + "---|" * (2 + len(OPERATIONS)),
    ]
    for family in sorted(table, key=str.casefold):
        for library, title in LIBRARIES.items():
            cells = table[family].get(library)
            if cells is None:
                continue
            shown = [_cell(cells.get(operation), reasons) for operation in OPERATIONS]
            lines.append(f"| {family} | {title} | " + " | ".join(shown) + " |")
    numbered = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([*lines, "", *numbered]) + "\n"


def _cell(value, reasons):
    if value is None:
        return ""
    if isinstance(value, str):
        return f"refused ({reasons.setdefault(value, len(reasons) + 1)})"
    return f"{value:.0e}" if value <= EXACT else f"{value:.2g}"


def write_document():
    """Puts the table between its marks in docs/models.md; returns whether that changed it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    pattern = re.compile(f"(?<={re.escape(_BEGIN)}).*(?={re.escape(_END)})", re.S)
    changed = pattern.sub(lambda match: render(read()), text)
    DOCUMENT.write_text(changed, encoding="utf-8")
    return changed != text


if __name__ == "__main__":
    write_document()
