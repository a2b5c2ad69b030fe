"""The vocabulary that a checkpoint was pretrained with: found beside it, or named and compared.

A pretraining run W keeps what its tokens were made with in W/data/*/, and W/run.json has the hash.
A fused model that `trainers.fuse` wrote into W is found the same way. Tokens that were prepared
elsewhere, and checkpoints that were copied out of their run, need `--vocabulary`: no path that a
checkpoint contains is opened.
"""

import pathlib

from absl import logging

from trainers.checkpoints import Checkpoint
from trainers.data import manifest
from trainers.data.vocabulary import Vocabulary
from trainers.errors import UserError
from trainers.files import read_json
from trainers.runs.workdir import DATA_FOLDER, RUN_FILE

# A checkpoint lies in W/STAGE/checkpoints/step_…
_DEPTH = 3
# T5's; a folder of tokens records its own number.
_SENTINELS = 100
# Of a hash, in a run's settings and in messages.
_DIGITS = 12


def find(checkpoint: Checkpoint, rows: int, given: str | None = None) -> Vocabulary:
    """The vocabulary that a checkpoint, whose embedding has so many rows, was pretrained with.

    Args:
        given: a SentencePiece model, or a folder that `trainers.prepare` wrote; None looks for
            that of the checkpoint's run.

    Raises:
        UserError: there is none, or it is another one; the message names the file and both values.
    """
    parents = list(checkpoint.path.resolve().parents)[:_DEPTH]
    run = next((path for path in parents if (path / RUN_FILE).is_file()), None)
    settings = read_json(run / RUN_FILE).get("settings", {}) if run else {}
    # What pretraining, conversion and fusion write into a checkpoint says it as well.
    recorded = checkpoint.config.get("settings", {}).get("vocabulary")
    sha256 = str(settings.get(manifest.VOCABULARY) or recorded or "")[:_DIGITS]
    if given:
        path, vocabulary = _open(pathlib.Path(given), rows)
    elif run:
        path, vocabulary = _search(run, sha256, rows)
    else:
        raise UserError(
            "--vocabulary for a checkpoint outside the folder of its run",
            f"checkpoint={str(checkpoint.path)!r} without a {RUN_FILE} above it",
            "Add --vocabulary=FILE or =FOLDER (of trainers.prepare)",
        )
    if not vocabulary.sha256.startswith(sha256):
        raise UserError(
            f"the vocabulary that the model was pretrained with ({sha256})",
            f"vocabulary={str(path)!r} ({vocabulary.sha256[: len(sha256)]}), another one "
            f"than that of checkpoint={str(checkpoint.path)!r}",
            "Leave out --vocabulary",
        )
    if vocabulary.padded_size != rows:
        raise UserError(
            f"a vocabulary of {rows} ids, as checkpoint={str(checkpoint.path)!r} has",
            f"vocabulary={str(path)!r} of {vocabulary.padded_size}",
            "Give the one that the model was pretrained with",
        )
    if not sha256:
        message = "%s does not say its vocabulary: that it is %s was not checked"
        logging.warning(message, checkpoint.path, path)
    return vocabulary


def _open(path: pathlib.Path, rows: int) -> tuple[pathlib.Path, Vocabulary]:
    """Opens a file, or that of a folder of tokens, which records its number of sentinels."""
    if path.is_dir():
        sentinels = manifest.read(path)["vocabulary"]["sentinels"]
        path = path / manifest.VOCABULARY
        return path, Vocabulary.from_file(path, sentinels)
    pieces = Vocabulary.from_file(path, 0).num_pieces
    # Their number decides only the ids of sentinels and padding; no label has either.
    return path, Vocabulary.from_file(path, max(0, min(_SENTINELS, rows - pieces)))


def _search(run: pathlib.Path, sha256: str, rows: int) -> tuple[pathlib.Path, Vocabulary]:
    """Opens the vocabulary of a run's data folders whose hash begins so."""
    for folder in sorted(run.glob(f"{DATA_FOLDER}/*/{manifest.MANIFEST}")) if sha256 else ():
        path, vocabulary = _open(folder.parent, rows)
        if vocabulary.sha256.startswith(sha256):
            return path, vocabulary
    raise UserError(
        f"the vocabulary {sha256} of the pretraining run in its data folder",
        f"folder={str(run / DATA_FOLDER)!r}, which does not have it",
        "Add --vocabulary=FOLDER (what its --data_dir was)",
    )
