"""From a corpus to a data folder: vocabulary, token files, manifest.

    <root>/<corpus>-<first 12 of the settings' hash>/
        vocabulary.model     SentencePiece model
        train.tokens         little-endian uint16 (uint32 above 65,536 ids), documents end with EOS
        validation.tokens    the same
        manifest.json        hashes, counts, settings, versions

The folder is written beside its place and renamed when it is complete, under a lock, so that
nobody ever sees half of one and two processes do not do the work twice.
"""

import collections
import contextlib
import itertools
import pathlib
import time
from collections.abc import Iterator

import numpy as np
from absl import logging
from tqdm import tqdm

from trainers.data import manifest, vocabulary
from trainers.data.config import DataConfig, identity_sha256
from trainers.data.corpora import TRAIN, VALIDATION, content_fraction, make_corpus
from trainers.data.tokens import EOS_ID, UNK_ID
from trainers.errors import UserError, os_errors
from trainers.files import locked, replacing_folder
from trainers.versions import installed_versions

CHUNK_BYTES = 1 << 18  # text per element of the tokenising pass


def prepare(config: DataConfig) -> pathlib.Path:
    """Makes the data folder of `config`, or finds it, and returns it.

    Raises:
        UserError: an input that cannot be used, or a folder that is there but damaged.

    Example:
        >>> folder = prepare(DataConfig(corpus="docs", vocabulary_pieces=480, num_sentinels=32))
    """
    corpus = make_corpus(config)
    given = None
    if config.vocabulary_path:
        given = vocabulary.Vocabulary.from_file(config.vocabulary_path, config.num_sentinels)
    identity = config.identity(corpus.sha256, given.sha256 if given else None)
    identity["format"] = manifest.FORMAT
    digest = identity_sha256(identity)
    folder = pathlib.Path(config.root) / f"{config.corpus}-{digest[:12]}"
    do = "Fix it, or give another data folder"
    with (
        os_errors("to read and write files", f"data_dir={config.root}", do),
        locked(folder.with_name(f".{folder.name}.lock")),
    ):
        if folder.exists():
            manifest.read(folder)
            logging.info("found %s", folder)
        else:
            with replacing_folder(folder) as unfinished:
                _build(unfinished, config, corpus, given, identity)
            logging.info("wrote %s", folder)
    tell_other_text(folder)
    _tell_unknown(folder)
    return folder


def tell_other_text(folder: str | pathlib.Path) -> None:
    """Warns where the corpus `docs` of a prepared folder is not that of this version."""
    facts = manifest.read(folder)
    note = facts["corpus"].get("note")
    if note:
        logging.warning("corpus %s: %s", facts["config"]["corpus"], note)


def _tell_unknown(folder: pathlib.Path) -> None:
    """Logs the share of tokens that the vocabulary does not know; warns above one per cent."""
    facts = manifest.read(folder)
    share = manifest.unknown_share(facts)
    if share is None:
        return
    logging.info("%.3g %% of the tokens are unknown", 100 * share)
    if share > manifest.MUCH_UNKNOWN:
        is_given = facts["vocabulary"]["trained_on_bytes"] is None
        logging.warning(
            "%.3g %% of the tokens are unknown to the vocabulary, which a model cannot learn from: "
            "%s",
            100 * share,
            "leave out --vocabulary, so that one is trained on this text"
            if is_given
            else "take more --vocabulary_pieces",
        )


def _build(folder: pathlib.Path, config: DataConfig, corpus, given, identity: dict):
    """Writes everything into `folder`."""
    started = time.monotonic()
    words, sample_bytes = given, None
    if words is None:
        sample = _sample(corpus, config)
        if not sample:
            received = f"corpus={config.corpus} with no document to train on"
            raise UserError("text to make a vocabulary from", received, "Give more text")
        sample_bytes = sum(len(text.encode()) for text in sample)
        logging.info("training %d pieces on %d bytes", config.vocabulary_pieces, sample_bytes)
        model = vocabulary.train(sample, config.vocabulary_pieces)
        words = vocabulary.Vocabulary(model, config.num_sentinels)
    (folder / manifest.VOCABULARY).write_bytes(words.model)
    splits = _tokenise(folder, config, corpus, words)
    size, documents = (sum(c[name] for c in splits.values()) for name in ("bytes", "documents"))
    for split, counts in splits.items():
        if not counts["documents"]:
            raise UserError(
                f"text for both splits, but {split} got no document",
                f"corpus={config.corpus} with {size} bytes in {documents} documents",
                "Give more text, or prepare it with trainers.prepare --validation_fraction=0.5",
            )
    manifest.write(
        folder,
        {
            "config": identity,
            "config_sha256": identity_sha256(identity),
            "corpus": corpus.facts(),
            "dtype": f"little-endian {manifest.token_dtype(words.size).name}",
            "files": manifest.describe_files(folder),
            "seconds": round(time.monotonic() - started, 1),
            "splits": splits,
            "versions": installed_versions(),
            "vocabulary": {
                "sha256": words.sha256,
                "pieces": words.num_pieces,
                "sentinels": words.num_sentinels,
                "size": words.size,
                "padded_size": words.padded_size,
                "trained_on_bytes": sample_bytes,
            },
        },
    )


def _sample(corpus, config: DataConfig) -> list[str]:
    """Training documents for the vocabulary, spread over the corpus; more for more pieces."""
    most = max(2_000_000, 2000 * config.vocabulary_pieces)
    documents = corpus.documents()
    share = min(1.0, 1.1 * most / corpus.size) if corpus.size else 1.0
    sample, total = [], 0
    with tqdm(total=most, unit="B", unit_scale=True, desc="sampling", disable=None) as bar:
        for document in documents:
            chosen = content_fraction(document.text, config.seed, "vocabulary") < share
            if document.split == TRAIN and chosen:
                sample.append(document.text)
                size = len(document.text.encode())
                total += size
                bar.update(size)
                if total >= most:
                    break
    return sample


def _tokenise(folder: pathlib.Path, config: DataConfig, corpus, words) -> dict:
    """Writes the token files and returns documents, bytes and tokens of each split."""
    empty = dict(documents=0, bytes=0, tokens=0, unknown=0)
    counts = {split: dict(empty) for split in (TRAIN, VALIDATION)}
    dtype = manifest.token_dtype(words.size)
    waiting = collections.deque()  # what the tokenizer has taken, in its order

    def chunks() -> Iterator[list[str]]:
        for chunk in _chunks(corpus.documents()):
            waiting.extend(chunk)
            yield [document.text for document in chunk]

    with contextlib.ExitStack() as stack:
        files = {
            split: stack.enter_context((folder / manifest.token_file(split)).open("wb"))
            for split in counts
        }
        bar = stack.enter_context(
            tqdm(total=corpus.size, unit="B", unit_scale=True, desc="tokenising", disable=None)
        )
        for ids in itertools.chain.from_iterable(words.encode_chunks(chunks())):
            document = waiting.popleft()
            tokens = np.append(ids, EOS_ID).astype(dtype)
            tokens.tofile(files[document.split])
            sizes = {"documents": 1, "bytes": len(document.text.encode()), "tokens": len(tokens)}
            sizes["unknown"] = int(np.count_nonzero(tokens == UNK_ID))
            for name, size in sizes.items():
                counts[document.split][name] += size
            bar.update(sizes["bytes"])
            if config.max_tokens and counts[TRAIN]["tokens"] >= config.max_tokens:
                break
    return counts


def _chunks(documents) -> Iterator[list]:
    """Groups documents into lists of about `CHUNK_BYTES`."""
    chunk, size = [], 0
    for document in documents:
        chunk.append(document)
        size += len(document.text)
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
