"""Rewrites a report while its runs train."""

import contextlib
import dataclasses
import time

from trainers import stopping
from trainers.errors import Stopped
from trainers.runs import history
from trainers.runs.planned import unfinished
from trainers.runs.state import RunState

_SLICE = 0.2  # seconds between two looks for a signal


def watch(workdirs, make, write, seconds):
    """Rewrites a report whenever its runs have something new, until all is trained, or a signal.

    While it does, the page has a browser read it again every so often, which needs no server; the
    last one does not. A run that has not begun is waited for.

    Args:
        workdirs: folders of the runs.
        make: function from the list of `RunHistory` to the `Report`.
        write: function that writes a `Report` and returns the path of its page.
        seconds: time between two looks at the runs.

    Raises:
        UserError: a run cannot be read, or the report cannot be written.
    """
    states = [RunState(workdir) for workdir in workdirs]
    before, report, is_waiting = None, None, False
    # Inside, a signal waits until the report is whole; it is how a watch is to end.
    with contextlib.suppress(Stopped), stopping.postponed() as stop:
        while not stop.requested:
            empty = next((state.path for state in states if history.is_empty(state.path)), None)
            if empty is None:
                # Looked up first: what is finished then is on the page.
                is_live = any(map(unfinished, states))
                runs = [history.read_run(state.path) for state in states]
                if runs != before or not is_live:
                    report = make(runs)
                    path = write(dataclasses.replace(report, refresh=seconds if is_live else None))
                    if before is None:
                        print(f"Report: {path}", flush=True)
                    before = runs
                if not is_live:
                    return
            elif before is None and not is_waiting:
                is_waiting = True
                print(f"Waiting for the first stage in {empty}.", flush=True)
            pause(seconds, stop)
        if report is not None:
            write(report)


def pause(seconds, stop):
    """Sleeps for some seconds, or until a `stopping.Stop` is requested."""
    until = time.monotonic() + seconds
    while not stop.requested and time.monotonic() < until:
        time.sleep(_SLICE)
