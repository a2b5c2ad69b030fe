"""Signals: remembered in a loop, raised at once elsewhere, and a second one ends the process."""

import contextlib
import os
import signal
import subprocess
import threading

import pytest

from tests.trainers.training import loop_support
from trainers import stopping
from trainers.errors import Stopped


@pytest.fixture(autouse=True)
def _forget():
    """The flag stays up until the next `handled`; tests may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
    with stopping.handled():
        pass


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_outside_a_loop_it_is_raised_at_once(number):
    with pytest.raises(Stopped) as caught, stopping.handled():
        send(number)
        pytest.fail("the signal did nothing")
    name = signal.Signals(number).name
    name = "the limit of --max_seconds" if name == "SIGALRM" else name
    assert str(caught.value) == f"stopped by {name}; give the same command again to resume"
    assert not isinstance(caught.value, Exception)


def test_inside_a_loop_it_is_a_flag():
    with pytest.raises(Stopped, match="stopped at step 7 by SIGINT, saved"), stopping.handled():
        with stopping.postponed() as stop:
            assert not stop.requested
            send(signal.SIGINT)
            assert stop.requested
            raise stop.stopped_at(7)


def test_a_flag_that_nobody_acted_on_is_raised_behind_the_loop():
    reached = []
    with pytest.raises(Stopped), stopping.handled():
        with stopping.postponed():
            send()
            reached.append("end of the loop")
        reached.append("behind it")
    assert reached == ["end of the loop"]


def test_a_thread_that_comes_late_does_not_begin_its_loop():
    with pytest.raises(Stopped), stopping.handled():
        send()
    with pytest.raises(Stopped), stopping.postponed():
        pytest.fail("it began")
    with stopping.handled(), stopping.postponed() as stop:
        assert not stop.requested


def test_every_loop_in_a_thread_reads_the_flag():
    inside, go, names = threading.Barrier(3), threading.Event(), []

    def loop():
        with pytest.raises(Stopped), stopping.postponed() as stop:
            inside.wait(60)
            go.wait(60)
            names.append(stop.name)

    def late():
        go.wait(60)
        with pytest.raises(Stopped), stopping.postponed():
            names.append("must not begin")

    threads = [threading.Thread(target=target) for target in (loop, loop, late)]
    with stopping.handled():
        for thread in threads:
            thread.start()
        inside.wait(60)
        send()
        go.set()
        for thread in threads:
            thread.join(60)
    assert names == ["SIGTERM", "SIGTERM"]


def test_handlers_are_those_of_before():
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stopping.handled():
        with stopping.handled():
            pass
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before
    with stopping.postponed() as stop:
        assert not stop.requested


def test_no_handlers_in_another_thread():
    seen = []

    def run():
        with stopping.handled():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_signals_that_come_together_are_one_request():
    with pytest.raises(Stopped, match="stopped at step 7"), stopping.handled():
        with stopping.postponed() as stop:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                send(number)
            raise stop.stopped_at(7)


def test_a_limit_of_time_is_a_request():
    with pytest.raises(Stopped, match="by the limit of --max_seconds"), stopping.handled():
        stopping.limit(0.01)
        signal.pause()


@pytest.mark.parametrize("seconds", [1e10, 1e300])
def test_a_limit_longer_than_timers_can_wait_is_none(seconds):
    with stopping.handled():
        stopping.limit(seconds)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 1e8


def test_a_limit_ends_with_the_program():
    with stopping.handled():
        stopping.limit(1000)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_closed_terminal_is_ignored_where_it_was_before():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.handled():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# A call that looks at no signal before it ends, in hours: like a device that does not answer.
DEAF = """
import hashlib
from trainers import stopping
stopping.TOGETHER_SECONDS = 0
with stopping.handled(), stopping.postponed():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_a_later_signal_of_the_same_kind_ends_the_process_at_once():
    started = subprocess.Popen(**loop_support.python(DEAF), stdout=subprocess.PIPE, text=True)
    with started:
        assert started.stdout.readline() == "ready\n"
        for _ in range(600):  # Two that are sent at once may arrive as one.
            started.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert started.wait(timeout=0.1) == 128 + signal.SIGTERM
                return
    pytest.fail("the process did not end")
