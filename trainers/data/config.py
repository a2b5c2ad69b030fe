"""What decides the contents of a prepared data folder."""

import dataclasses
import hashlib
import json

from trainers.errors import UserError

DOCUMENT_FORMS = ("paragraph", "line")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Settings of `trainers.data.preparation.prepare`; checks itself.

    Args:
        corpus: name of the corpus, a key of `trainers.data.corpora.CORPORA`.
        corpus_path: `text`: files, a comma list of paths and glob patterns; `c4`: TFDS's data
            folder, None for its own default; `docs` takes none.
        document: `text`: a document is a "paragraph" (blank lines between) or a "line".
        packages: `docs`: the packages to read, "python" for the standard library; none: all.
        vocabulary_path: a SentencePiece model to use; None trains one.
        vocabulary_pieces: pieces of the model that is trained.
        num_sentinels: ids above the pieces that mark spans.
        root: folder that holds the prepared folders.
        seed: of the split, of the order of `docs` and of the vocabulary's sample.
        validation_fraction: share of the documents for validation, where the corpus has no
            validation split of its own.
        max_bytes: how much text to read, None for all of it (`docs`: for 16 MB).
        max_tokens: how many training tokens to write, None for no limit.

    Raises:
        UserError: a value that nothing could be prepared with.

    Example:
        >>> config = DataConfig(corpus="docs", vocabulary_pieces=480, num_sentinels=32)
    """

    corpus: str = "docs"
    corpus_path: str | None = None
    document: str = "paragraph"
    packages: tuple[str, ...] = ()
    vocabulary_path: str | None = None
    vocabulary_pieces: int = 32_000
    num_sentinels: int = 100
    root: str = "data"
    seed: int = 0
    validation_fraction: float = 0.05
    max_bytes: int | None = None
    max_tokens: int | None = None

    def __post_init__(self):
        _check(self.document in DOCUMENT_FORMS, "a line or a paragraph", self, "document")
        _check(
            not self.packages or self.corpus == "docs",
            "packages with the corpus docs only",
            self,
            "packages",
        )
        _check(self.vocabulary_pieces > 3, "more than 3 pieces", self, "vocabulary_pieces")
        _check(self.num_sentinels > 0, "at least one sentinel", self, "num_sentinels")
        _check(self.seed >= 0, "a seed of at least 0", self, "seed")
        _check(
            0 < self.validation_fraction < 1,
            "a share between 0 and 1 (such as 0.05)",
            self,
            "validation_fraction",
        )
        for name in ("max_bytes", "max_tokens"):
            value = getattr(self, name)
            _check(value is None or value > 0, "a limit above 0, or none", self, name)

    def identity(self, corpus_sha256: str, vocabulary_sha256: str | None) -> dict:
        """What makes two prepared folders the same: settings and contents, but no paths.

        Args:
            corpus_sha256: hash of the source's contents, "" where only its name is known.
            vocabulary_sha256: hash of the given model, None where one is trained.
        """
        found = dataclasses.asdict(self) | {"packages": sorted(self.packages)}
        for path in ("root", "corpus_path", "vocabulary_path"):
            del found[path]
        if vocabulary_sha256:
            del found["vocabulary_pieces"]
        return found | {"corpus_sha256": corpus_sha256, "vocabulary_sha256": vocabulary_sha256}


def identity_sha256(identity: dict) -> str:
    """Hash of a `DataConfig.identity`."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _check(holds: bool, expected: str, config: DataConfig, name: str):
    if not holds:
        raise UserError(f"Expected {expected}. Received: {name}={getattr(config, name)!r}.")
