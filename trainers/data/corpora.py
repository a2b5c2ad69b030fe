"""Corpora: where documents come from, and which of them are for validation.

`docs` is the English that every machine with this project already has: the docstrings of packages
that it pins, one text for one version of the project. `text` reads the user's files, `c4` the C4
corpus through TensorFlow Datasets. Each is a class, listed in `CORPORA`, made from a `DataConfig`,
with

    documents()  iterator of `Document`, in an order that depends on the settings alone
    sha256       hash of the contents or their versions, "" where only a name is known
    size         approximate bytes of text, None where reading alone can tell
    facts()      facts about the source, for the manifest

Train and validation never share a document: where a corpus has no validation split of its own, a
hash of the document's content decides, so that equal documents fall on the same side.
"""

import functools
import glob
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from trainers.data import docstrings, manifest, tfds_versions
from trainers.data.config import CORPORA, DataConfig
from trainers.data.cutting import cut
from trainers.errors import UserError, os_errors

TRAIN, VALIDATION = "train", "validation"
DOCS_MAX_BYTES = 16_000_000


class Document(NamedTuple):
    """A text and the split that it belongs to."""

    split: str
    text: str


def content_fraction(text: str, seed: int, purpose: str) -> float:
    """Returns a number in [0, 1) that depends on the text's words, `seed` and `purpose` alone.

    White space does not count, because SentencePiece does not tell it apart either.
    """
    content = f"{purpose}:{seed}:{' '.join(text.split())}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big") / 2**56


def split_of(text: str, config: DataConfig) -> str:
    """Returns the split of a document, by its content."""
    fraction = content_fraction(text, config.seed, "split")
    return VALIDATION if fraction < config.validation_fraction else TRAIN


class DocsCorpus:
    """Docstrings of installed packages, by default of pinned ones; a document is a module."""

    size = None

    def __init__(self, config: DataConfig):
        if config.corpus_path is not None:
            raise UserError(
                "no path with the corpus docs, which reads what is installed",
                f"corpus_path={config.corpus_path}",
                "For files take the corpus text",
            )
        self._config = config
        self._sources = docstrings.Sources(config.packages)
        versions = json.dumps(self._sources.versions, sort_keys=True)
        self.sha256 = hashlib.sha256(versions.encode()).hexdigest()

    @functools.cached_property
    def _texts(self) -> list[str]:
        """The texts of all modules; the sources are parsed once, however often they are read."""
        limit = self._config.max_bytes or DOCS_MAX_BYTES
        texts = docstrings.module_documents(self._sources.ordered(), limit)
        self.size = sum(len(text.encode()) for text in texts)
        return texts

    def documents(self) -> Iterator[Document]:
        """Yields the documents in an order that depends on their contents and the seed."""
        seed = self._config.seed
        for text in sorted(self._texts, key=lambda text: content_fraction(text, seed, "order")):
            yield Document(split_of(text, self._config), text)

    def facts(self) -> dict:
        """Name and version of every package, the text's hash, and how it differs from ours."""
        versions, sha256 = self._sources.versions, docstrings.text_sha256(self._texts)
        note = docstrings.other_text(versions, sha256)
        return {"packages": versions, "text_sha256": sha256, "note": note}


class TextCorpus:
    """UTF-8 files; a document is a line or a paragraph between blank lines.

    A longer one than a share of the text is cut at spaces into several, so that both splits get
    documents of any text, be it one line.
    """

    # Fewer documents than about this would leave a split empty by chance.
    LEAST_DOCUMENTS = 400
    # What no document is cut below: a few hundred tokens.
    SHORTEST_CUT = 1_000

    def __init__(self, config: DataConfig):
        self._config = config
        self._files = expand(config.corpus_path)
        self._sha256 = {path: _file_sha256(path) for path in self._files}
        self.sha256 = hashlib.sha256("".join(self._sha256.values()).encode()).hexdigest()
        self.size = sum(path.stat().st_size for path in self._files)
        if config.max_bytes:
            self.size = min(self.size, config.max_bytes)

    def documents(self) -> Iterator[Document]:
        """Yields the documents of the files, in the order of their names."""
        longest = max(self.SHORTEST_CUT, self.size // self.LEAST_DOCUMENTS)
        texts = (
            part
            for path in self._files
            for text in self._texts(path)
            for part in cut(text, longest)
        )
        for text in _take_bytes(texts, self._config.max_bytes):
            yield Document(split_of(text, self._config), text)

    def facts(self) -> dict:
        """Name, size and hash of every file."""
        return {
            "files": [
                {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}
                for path, digest in self._sha256.items()
            ]
        }

    def _texts(self, path: pathlib.Path) -> Iterator[str]:
        by_line = self._config.document == "line"
        if self._config.document == "auto":
            by_line = not _has_paragraphs(path)
        for has_text, lines in itertools.groupby(_read_lines(path), bool):
            if has_text and by_line:
                yield from lines
            elif has_text:
                yield "\n".join(lines)


class C4Corpus:
    """TFDS `c4/en`, feature `text`, with its own validation split."""

    sha256 = ""
    NAME = "c4/en"

    def __init__(self, config: DataConfig):
        self._config = config
        self.size = config.max_bytes
        self._builder = None

    def documents(self) -> Iterator[Document]:
        """Yields validation documents, then training documents, in TFDS's order.

        With `max_bytes` both are limited, validation to its share.
        """
        limit = self._config.max_bytes
        share = max(1, int(limit * self._config.validation_fraction)) if limit else None
        limits = {VALIDATION: share, TRAIN: limit - share if limit else None}
        for split, most in limits.items():
            for text in _take_bytes(self._texts(split), most):
                yield Document(split, text)

    def facts(self) -> dict:
        """Name and version of the TFDS data set."""
        return {"tfds": f"{self.NAME}/{self._builder.version}"}

    def _texts(self, split: str) -> Iterator[str]:
        folder = self._config.corpus_path
        try:
            self._builder, dataset = tfds_versions.open_split(self.NAME, split, folder)
        except tfds_versions.NotPrepared as error:
            place = f"corpus_path={folder or '(the default of TFDS)'}"
            if error.versions:
                raise UserError(
                    f"{self.NAME} {error.wanted}, or a version with features.json",
                    f"{place} with {', '.join(error.versions)}, which cannot be read",
                    "Add features.json with tfds.folder_dataset.write_metadata, or install the "
                    "tensorflow_datasets that wrote it",
                ) from error
            raise UserError(
                f"{self.NAME} {error.wanted} or another version, prepared by TensorFlow Datasets",
                f"{place}, where it is not",
                "Build it with `tfds build c4/en` (hundreds of GB), or take docs or text",
            ) from error
        for example in dataset.as_numpy_iterator():
            yield example["text"].decode("utf-8", "replace")


_CORPORA = dict(zip(CORPORA, (DocsCorpus, TextCorpus, C4Corpus), strict=True))


def make_corpus(config: DataConfig):
    """Makes the corpus that `config` names."""
    return _CORPORA[config.corpus](config)


def expand(paths: str | None) -> list[pathlib.Path]:
    """Finds the files of a comma list of paths and glob patterns.

    Args:
        paths: such as "a.txt,books/*.txt"; "**" also descends.

    Returns:
        The files, each once, sorted by path.
    """
    paths_of_files = set()
    for part in [part.strip() for part in (paths or "").split(",") if part.strip()] or [paths]:
        matches = glob.glob(os.path.expanduser(part), recursive=True) if part else ()
        files = [match for match in matches if os.path.isfile(match)]
        if not files:
            reason = "which is a folder" if matches else "but no file is there"
            do = "Give --corpus_path='FOLDER/*.txt'"
            raise UserError("text files", f"corpus_path={part}, {reason}", do)
        paths_of_files.update(files)
    return [pathlib.Path(path) for path in sorted(paths_of_files)]


def _read_lines(path: pathlib.Path) -> Iterator[str]:
    """Yields stripped lines; blank ones are empty."""
    offset = 0
    with path.open("rb") as file:
        for raw in file:
            try:
                # A byte order mark can only stand at the very beginning.
                yield raw.decode("utf-8-sig" if offset == 0 else "utf-8").strip()
            except UnicodeDecodeError as error:
                byte, place = raw[error.start], offset + error.start
                raise UserError(
                    "UTF-8 text",
                    f"corpus_path={path} with the byte 0x{byte:02x} at offset {place}",
                    "Convert the file (iconv -t utf-8) or leave it out",
                ) from error
            offset += len(raw)


def _has_paragraphs(path: pathlib.Path) -> bool:
    """True where a blank line stands between lines with text."""
    groups = itertools.groupby(_read_lines(path), bool)
    return sum(has_text for has_text, _ in groups) > 1


def _take_bytes(texts: Iterator[str], limit: int | None) -> Iterator[str]:
    """Yields texts until `limit` bytes of UTF-8 are reached."""
    total = 0
    for text in texts:
        yield text
        total += len(text.encode())
        if limit and total >= limit:
            return


def _file_sha256(path: pathlib.Path) -> str:
    do = "Give read permission, or leave it out"
    with os_errors("a file that can be read", f"corpus_path={path}", do):
        return manifest.sha256_of(path)
