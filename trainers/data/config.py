"""Settings that decide the contents of a prepared data folder."""

import dataclasses
import hashlib
import json

from trainers.errors import UserError
from trainers.programs import check_options, option
from trainers.storage import Kind

CORPORA = ("docs", "text", "c4")
DOCUMENT_FORMS = ("auto", "paragraph", "line")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Settings of `trainers.data.preparation.prepare`; checks itself.

    Attributes:
        corpus_path: of `c4`, None takes the folder that TFDS takes by default.
        vocabulary_path: a SentencePiece model; None trains one.
        root: folder that holds the prepared folders.
        seed: of the split, of the order of `docs` and of the vocabulary's sample.

    Example:
        >>> config = DataConfig(corpus="docs", vocabulary_pieces=480, num_sentinels=32)
    """

    corpus: str = option("docs", "Where the text comes from.", choices=CORPORA, group="Text")
    corpus_path: str | None = option(
        None,
        "text: comma list of files and patterns. c4: the data folder of TFDS.",
        place=Kind.FILES,
    )
    document: str = option(
        "auto",
        "text: what a document is; auto: a paragraph, in files without blank lines a line.",
        choices=DOCUMENT_FORMS,
    )
    packages: tuple[str, ...] = option(
        (), "docs: packages to read, 'python' for the standard library; none: those of the project."
    )
    vocabulary_path: str | None = option(
        None,
        "SentencePiece .model file to use; without one it is trained on the corpus.",
        flag="vocabulary",
        group="Vocabulary",
        place=Kind.FILE,
    )
    vocabulary_pieces: int = option(32_000, "Pieces of the vocabulary that is trained.", at_least=4)
    num_sentinels: int = option(100, "Sentinels above the pieces, to mark spans.", at_least=1)
    root: str = option(
        "data",
        "Folder in which the prepared folder is made.",
        flag="data_dir",
        group="Tokens",
        place=Kind.ADD,
    )
    seed: int = option(0, "Seed of the split and of the order of docs.", at_least=0)
    validation_fraction: float = option(
        0.05,
        "Share of documents for validation, where the corpus has no split of its own.",
        above=0,
        below=1,
    )
    max_bytes: int | None = option(
        None, "Bytes of text to read; without it all, of docs at most 16 MB.", at_least=1
    )
    max_tokens: int | None = option(None, "Training tokens to write; without it all.", at_least=1)

    def __post_init__(self):
        check_options(self)
        if self.packages and self.corpus != "docs":
            received = f"packages={self.packages!r}, corpus={self.corpus!r}"
            raise UserError("packages with the corpus docs only", received, "Leave them out")

    def identity(self, corpus_sha256: str, vocabulary_sha256: str | None) -> dict:
        """Returns the settings and hashes, but no paths, that make two prepared folders the same.

        Args:
            corpus_sha256: hash of the source's contents, "" where only its name is known.
            vocabulary_sha256: hash of the given model, None where one is trained.
        """
        settings = dataclasses.asdict(self) | {"packages": sorted(self.packages)}
        for path in ("root", "corpus_path", "vocabulary_path"):
            del settings[path]
        if vocabulary_sha256:
            del settings["vocabulary_pieces"]
        return settings | {"corpus_sha256": corpus_sha256, "vocabulary_sha256": vocabulary_sha256}


def identity_sha256(identity: dict) -> str:
    """Hash of a `DataConfig.identity`."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
