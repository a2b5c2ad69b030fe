"""Logs of a training run: metrics.jsonl, TensorBoard's event files, the progress bar."""

import json
import math
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterator, Mapping

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from trainers.files import AppendedFile, parse_json, replacing
from trainers.runs.workdir import METRICS_FILE, TENSORBOARD_FOLDER
from trainers.training.hparams import HParams

# tqdm's own, but for the time left: the bar's is that of one stage.
_BAR = (
    "{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} [{{elapsed}}, {left} left in all, "
    "{{rate_fmt}}{{postfix}}]"
)
_EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)\.(\d{6})\.")


class MetricsFile:
    """metrics.jsonl: one JSON object per line, {"kind": "train", "eval" or another, "step": …, …}.

    Opening it cuts it back to the step that the run resumes from (None for a new run), so that no
    step stands in it twice, and drops a last line that a killed process left half written.
    """

    def __init__(self, path: str | os.PathLike, step: int | None):
        self.path = pathlib.Path(path)
        kept = read_metrics(self.path) if step is not None else []
        kept = [line for line in kept if line["step"] <= step]
        with replacing(self.path) as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        self._file = AppendedFile(self.path)

    def write(self, kind: str, values: Mapping) -> None:
        """Appends one line; a value that is not finite becomes null, which JSON can say."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self._file.write(json.dumps({"kind": kind, **finite}).encode() + b"\n")

    def sync(self) -> None:
        """Makes the lines outlive a loss of power, as the checkpoint that counts on them does."""
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """Returns the lines of a metrics file up to the first that is not whole; [] without file."""
    path = pathlib.Path(path)
    lines = []
    if path.exists():
        for text in path.read_bytes().splitlines():
            try:
                line = parse_json(text, constant=float)
            except ValueError:
                break
            if not isinstance(line, dict) or type(line.get("step")) is not int:
                break
            lines.append(line)
    return lines


class TensorBoard:
    """Scalars for TensorBoard, through tensorboard's own records: imports no TensorFlow.

    Each start of a run adds a file to the folder. TensorBoard forgets what it read beyond the step
    that the run resumes from.
    """

    def __init__(self, folder: str | os.PathLike, step: int | None):
        folder = pathlib.Path(folder)
        name = f"events.out.tfevents.{_stamp(folder)}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter(AppendedFile(folder / name, new=True))
        self._write(file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        # From this step on TensorBoard drops what earlier files say.
        self._write(step=0 if step is None else step + 1, session_log=start)

    def write(self, kind: str, step: int, values: Mapping) -> None:
        """Adds numbers under "train/loss", "eval/accuracy", …"""
        scalars = [
            summary_pb2.Summary.Value(tag=f"{kind}/{name}", simple_value=float(value))
            for name, value in _flat(values)
            if name != "step"
        ]
        self._write(step=step, summary=summary_pb2.Summary(value=scalars))

    def write_hparams(self, hparams: HParams) -> None:
        """Adds a row to the HPARAMS page."""
        for summary in hparams.summaries():
            self._write(step=0, summary=summary)

    def _write(self, **content) -> None:
        event = event_pb2.Event(wall_time=time.time(), **content)
        self._writer.write(event.SerializeToString())

    def close(self) -> None:
        self._writer.close()


def _flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers in a mapping and in those within it, with their paths."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value


def _stamp(folder: pathlib.Path) -> str:
    """A time for the name of an event file: TensorBoard reads them in the order of their names.

    So it comes after those that are there, also when this machine's clock is behind.
    """
    stamp = time.time_ns() // 1000
    for path in folder.glob("events.*"):
        if match := _EVENTS.match(path.name):
            stamp = max(stamp, int(match[1] + match[2]) + 1)
    return f"{stamp // 10**6}.{stamp % 10**6:06d}"


class RunLog:
    """Metrics file, TensorBoard and progress bar together.

    Args:
        folder: the stage's folder.
        step: step that the run resumes from; None for a new run.
        steps: step that it ends at.
        name: name before the progress bar.
        progress: show the bar (on stderr).
        writes: False on hosts that neither write nor show anything.
        hparams: the run's settings, for TensorBoard.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        step: int | None,
        steps: int,
        name: str,
        progress: bool,
        writes: bool = True,
        hparams: HParams | None = None,
    ):
        self._writes = writes
        if writes:
            self._metrics = MetricsFile(folder / METRICS_FILE, step)
            self._board = TensorBoard(folder / TENSORBOARD_FOLDER, step)
            if hparams:
                self._board.write_hparams(hparams)
        self._bar = tqdm(
            total=steps,
            initial=step or 0,
            desc=name,
            unit="step",
            disable=not (progress and writes),
            mininterval=0.5,
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def advance(self, steps: int, left: float | None = None) -> None:
        """Moves the bar on; `left` are the seconds that the whole command has left, if known."""
        if left is not None:
            self._bar.bar_format = _BAR.format(left=tqdm.format_interval(left))
        self._bar.update(steps)

    def write(self, kind: str, values: Mapping) -> None:
        """Logs numbers of a step under a kind: "train", "eval", or that of a `Measurement`."""
        if kind == "train":
            self._bar.set_postfix_str(
                f"loss {values['loss_per_token']:.4f}, acc {values['accuracy']:.2f} %, "
                f"{values['tokens_per_second']:,.0f} tokens/s",
                refresh=False,
            )
        if self._writes:
            self._metrics.write(kind, values)
            self._board.write(kind, values["step"], values)

    def say(self, text: str) -> None:
        """Prints a line, if it is not empty, without breaking the bar."""
        if self._writes and text:
            self._bar.write(text)

    def sync(self) -> None:
        """Makes the metrics file outlive a loss of power."""
        if self._writes:
            self._metrics.sync()

    def close(self) -> None:
        self._bar.close()
        if self._writes:
            self._metrics.close()
            self._board.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        self.close()
