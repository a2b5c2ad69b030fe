"""Folders as a run makes them, and buckets of this process."""

import fsspec

from trainers.storage.remote import Remote

FILES = {
    "run.json": b"{}",
    "small_0/stage.json": b"{1}",
    "small_0/metrics.jsonl": b"line\n",
    "small_0/record.json": b"{2}",
    "small_0/checkpoints/step_00000003/model.safetensors": b"m3",
    "small_0/checkpoints/step_00000003/manifest.json": b"j3",
    "small_0/checkpoints/step_00000003/COMMITTED": b"c3",
}
# Of this machine alone.
HIDDEN = {
    ".locks/run.json.lock": b"process 1",
    "small_0/checkpoints/.partial_step_00000004_ab/model.safetensors": b"m",
    "small_0/checkpoints/step_00000002.replaced_ab/COMMITTED": b"c",
}


def write(folder, files):
    """Writes files under a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read(folder):
    """Returns name → bytes of the files of a folder that are no machine's own."""
    return {
        name: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.parts[-5:])
        for name in [path.relative_to(folder).as_posix()]
    }


def content(url):
    """Returns name → bytes of all files of a folder of a bucket."""
    files, root = fsspec.url_to_fs(url, skip_instance_cache=True)
    files.invalidate_cache()
    return {path[len(root) + 1 :]: files.cat_file(path) for path in files.find(root)}


def send(url, paths):
    """Copies files, by name, into a folder of a bucket."""
    # As programs write: gcsfs' own way loses a carriage return at the end of a file.
    there = Remote(url)
    for name, path in paths.items():
        there.write(name, path.read_bytes())


def checkpoint(step, content=b""):
    """Files of a checkpoint of stage small_0."""
    folder = f"small_0/checkpoints/step_{step:08d}"
    names = ("model.safetensors", "training.safetensors", "manifest.json", "COMMITTED")
    return {f"{folder}/{name}": name.encode() + b"%d" % step + content for name in names}
