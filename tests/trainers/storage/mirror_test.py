"""A folder and its copy in object storage: what travels, in which order, and what a kill leaves."""

import shutil

import fsspec
import pytest

from tests.trainers.storage import support
from trainers.storage.mirror import Mirror, newest
from trainers.storage.remote import Remote

URL = "memory://bucket/W"


@pytest.fixture(autouse=True)
def _empty_bucket():
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def mirror_at(folder):
    return Mirror(Remote(URL), folder / "W")


class Killed(BaseException):
    """The end of the process."""


class Dying:
    """A bucket that dies with the process before a request that changes it."""

    def __init__(self, requests):
        self._remote, self._left, self.names = Remote(URL), requests, []

    def __getattr__(self, name):
        method = getattr(self._remote, name)
        if name not in ("write", "upload", "remove"):
            return method

        def request(*args):
            if self._left == 0:
                raise Killed
            self._left -= 1
            self.names.append((name, args[0]))
            return method(*args)

        return request


def test_finished_files_travel_and_those_of_the_machine_do_not(tmp_path):
    support.write(tmp_path / "a/W", support.FILES | support.HIDDEN)
    assert mirror_at(tmp_path / "a").push() == len(support.FILES)
    assert support.content(URL) == support.FILES
    other = mirror_at(tmp_path / "b")
    other.pull()
    assert support.read(tmp_path / "b/W") == support.FILES
    # Nothing is sent twice.
    assert other.push() == mirror_at(tmp_path / "a").push() == 0


def test_what_says_that_others_are_whole_is_sent_after_them(tmp_path):
    support.write(tmp_path / "W", support.FILES)
    remote = Dying(-1)
    Mirror(remote, tmp_path / "W").push()
    names = [name.rpartition("/")[2] for _, name in remote.names]
    assert names[-3:] == ["manifest.json", "COMMITTED", "record.json"]


def test_what_is_gone_here_goes_there_marker_first(tmp_path):
    support.write(tmp_path / "W", support.FILES | support.checkpoint(6))
    remote = Dying(-1)
    mirror = Mirror(remote, tmp_path / "W")
    mirror.push()
    shutil.rmtree(tmp_path / "W/small_0/checkpoints/step_00000003")
    remote.names.clear()
    mirror.push()
    assert [kind for kind, _ in remote.names] == ["remove"] * 3
    assert remote.names[0][1] == ["small_0/checkpoints/step_00000003/COMMITTED"]
    assert not [name for name in support.content(URL) if "step_00000003" in name]


def whole_steps(folder):
    return [path.parent.name for path in sorted(folder.rglob("COMMITTED"))]


def test_killed_before_every_request_no_half_checkpoint_counts(tmp_path):
    """Step 3 was sent; it is written anew, and 6 is new."""
    before = support.FILES | support.checkpoint(3)
    anew = support.checkpoint(3, b"anew")
    after = {name: anew.get(name, content) for name, content in before.items()}
    after |= support.checkpoint(6)
    for requests in range(40):
        home = tmp_path / str(requests)
        fsspec.filesystem("memory").store.clear()
        support.write(home / "a/W", before)
        mirror_at(home / "a").push()
        support.write(home / "a/W", anew | support.checkpoint(6))
        try:
            Mirror(Dying(requests), home / "a/W").push()
        except Killed:
            pass
        else:
            break
        mirror_at(home / "b").pull()
        there = support.read(home / "b/W")
        for step in whole_steps(home / "b/W"):
            files = {name: there[name] for name in there if step in name}
            assert files in (
                support.checkpoint(3),
                support.checkpoint(3, b"anew"),
                support.checkpoint(6),
            )
        # Started again on the same machine, it sends the rest.
        again = mirror_at(home / "a")
        again.pull(owner=True, keep_own=True)
        again.push()
        assert support.content(URL) == after
    else:
        pytest.fail("it was never sent whole")
    assert requests > 8


def half_sent(step):
    """Sends a checkpoint but for its marker; returns its files."""
    half = support.checkpoint(step)
    half.popitem()
    for name, content in half.items():
        Remote(URL).write(name, content)
    return half


def test_a_checkpoint_without_a_marker_is_ignored_and_stays_until_a_later_one_is_there(tmp_path):
    support.write(tmp_path / "a/W", support.FILES)
    mirror_at(tmp_path / "a").push()
    half = half_sent(6)
    reader, writer = mirror_at(tmp_path / "b"), mirror_at(tmp_path / "c")
    reader.pull()
    writer.pull(owner=True)
    assert support.read(tmp_path / "b/W") == support.read(tmp_path / "c/W") == support.FILES
    assert not (tmp_path / "b/W/small_0/checkpoints/step_00000006").exists()
    support.write(tmp_path / "c/W", support.checkpoint(9))
    for mirror in (reader, writer):
        mirror.push()
        assert half.keys() <= support.content(URL).keys()
    # The next writer knows that another one has come after it.
    writer.pull(owner=True)
    writer.push()
    assert support.content(URL) == support.FILES | support.checkpoint(9)


def test_a_checkpoint_without_a_marker_is_sent_whole_by_who_has_it(tmp_path):
    support.write(tmp_path / "W", support.FILES | support.checkpoint(6))
    mirror_at(tmp_path).push()
    Remote(URL).remove(["small_0/checkpoints/step_00000006/COMMITTED"])
    half_sent(2)
    mirror = mirror_at(tmp_path)
    mirror.pull(owner=True, keep_own=True)
    assert mirror.push() == 1
    assert support.content(URL) == support.FILES | support.checkpoint(6)


@pytest.mark.parametrize("keep_own", [False, True])
def test_a_copy_that_is_ahead_stays_unless_others_wrote_there(tmp_path, keep_own):
    support.write(tmp_path / "W", support.FILES)
    mirror_at(tmp_path).push()
    support.write(tmp_path / "W", support.checkpoint(6))
    mirror = mirror_at(tmp_path)
    mirror.pull(owner=True, keep_own=keep_own)
    ahead = support.checkpoint(6) if keep_own else {}
    assert support.read(tmp_path / "W") == support.FILES | ahead
    # No empty folder is left that would look like a damaged checkpoint.
    assert (tmp_path / "W/small_0/checkpoints/step_00000006").exists() == keep_own


def test_of_sources_the_newest_checkpoint_is_brought(tmp_path):
    support.write(tmp_path / "a/W", support.FILES | support.checkpoint(6))
    mirror_at(tmp_path / "a").push()
    mirror_at(tmp_path / "b").pull(chosen=newest)
    assert whole_steps(tmp_path / "b/W") == ["step_00000006"]


def test_a_file_that_was_written_anew_there_is_brought_again(tmp_path):
    support.write(tmp_path / "a/W", support.FILES)
    mirror_at(tmp_path / "a").push()
    mirror_at(tmp_path / "b").pull()
    Remote(URL).write("run.json", b"[]")
    mirror_at(tmp_path / "b").pull()
    assert (tmp_path / "b/W/run.json").read_bytes() == b"[]"


def test_a_checkpoint_that_is_removed_while_it_is_sent_gets_no_marker(tmp_path):
    support.write(tmp_path / "W", support.checkpoint(6))
    mirror = mirror_at(tmp_path)
    write = mirror.remote.write

    def removing(name, content):
        shutil.rmtree(tmp_path / "W/small_0", ignore_errors=True)
        write(name, content)

    mirror.remote.write = removing
    mirror.push()
    assert not [name for name in support.content(URL) if name.endswith("COMMITTED")]
