"""Results of the measurements: a line of JSON for each as soon as it is there, and a table.

results.jsonl    one object per line: part, name, unit, values, median, further facts
results.md       the table of all lines, and how far the aims are met
"""

import json
import pathlib
import statistics

JSON_LINES, TABLE = "results.jsonl", "results.md"
# Least ratio of tokens per second to the peer's, least share of the card's peak.
SPEED_AIM, UTILISATION_AIM = 1.2, 0.5
OURS, PEER = "keras_fusion", "transformers"
_COLUMNS = ("part", "name", "unit", "median", "min", "max")


class Results:
    """Writer of a part's results.

    Args:
        folder: where the files lie.
        part: name of the part.
    """

    def __init__(self, folder, part):
        self.folder, self.part = pathlib.Path(folder), part

    def add(self, name, values, unit, **facts):
        """Writes a measurement.

        Args:
            name: what was measured.
            values: figures, round by round.
            unit: of the figures.
            **facts: what else the table should say of it; those that are None are left out.
        """
        named = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        facts = {key: value for key, value in facts.items() if value is not None}
        self._write({"name": name, "unit": unit, **named, **facts, "values": list(values)})

    def note(self, name, text, **facts):
        """Writes what happened instead of a measurement: a failure, or why it was left out."""
        self._write({"name": name, "note": " ".join(str(text).split())[:300], **facts})

    def _write(self, row):
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / JSON_LINES, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"part": self.part, **row}) + "\n")
        (self.folder / TABLE).write_text(markdown(read(self.folder)), encoding="utf-8")


def read(folder):
    """Returns the rows of a folder's results; none where there are none."""
    path = pathlib.Path(folder) / JSON_LINES
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def markdown(rows):
    """Returns the table of results, and under it the lines of `aims`."""
    lines = ["| part | measurement | median | min – max | unit | further |"]
    lines.append("|---" * 6 + "|")
    for row in rows:
        spread = f"{_text(row['min'])} – {_text(row['max'])}" if "min" in row else ""
        facts = {name: row[name] for name in row if name not in (*_COLUMNS, "values", "note")}
        further = ", ".join(f"{name} {_text(value)}" for name, value in facts.items())
        further = ": ".join(filter(None, (row.get("note"), further)))
        cells = (row["part"], row["name"], _text(row.get("median", "")), spread)
        cells = [*cells, row.get("unit", ""), further]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in aims(rows))]) + "\n"


def aims(rows):
    """Returns lines that compare a model's steps with the peer's, and with the card's peak."""
    lines = []
    speeds = [row for row in rows if row.get("unit") == "tokens/s"]
    for model in dict.fromkeys(row["model"] for row in speeds):
        of_model = [row for row in speeds if row["model"] == model]
        ours = [row for row in of_model if row["of"] == OURS]
        peers = [row for row in of_model if row["of"] == PEER]
        if ours:
            best = max(ours, key=lambda row: row["utilisation"])
            lines.append(
                f"{model}: {best['utilisation']:.1%} of the peak ({best['name']}); "
                f"aim {UTILISATION_AIM:.0%}"
            )
        if peers:
            peer = max(peers, key=lambda row: row["median"])
            alike = [row for row in ours if row["batch"] == peer["batch"]]
            best = max(alike, key=lambda row: row["median"], default=None)
        if peers and best:
            ratio = best["median"] / peer["median"]
            lines.append(
                f"{model}: {ratio:.2f} × the peer's tokens/s at batch {peer['batch']} "
                f"({best['name']} over {peer['name']}); aim {SPEED_AIM}"
            )
    return lines


def _text(value):
    """Numbers with four digits, or as whole numbers; other values as they are."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
