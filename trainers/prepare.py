"""Prepares text for pretraining: vocabulary, token files, manifest.

    python -m trainers.prepare --corpus=docs --vocabulary_pieces=480 --num_sentinels=32
    python -m trainers.prepare --corpus=text --corpus_path='books/*.txt,more.txt'
    python -m trainers.prepare --corpus=c4 --corpus_path=TFDS_FOLDER --vocabulary=t5.model

Prints the folder that it wrote, or found, which is what training reads. With 480 pieces, 16 MB
of docstrings take half a minute on two cores, and a few MB of files some seconds;
32,000 pieces are trained on 64 MB, where there is so much, in minutes.
"""

from collections.abc import Sequence

from absl import flags

from trainers import programs, stopping
from trainers.data.config import DOCUMENT_FORMS, DataConfig
from trainers.data.corpora import CORPORA
from trainers.data.preparation import prepare

_DEFAULT = DataConfig()

_CORPUS = flags.DEFINE_string(
    "corpus", _DEFAULT.corpus, f"Where the text comes from: {', '.join(CORPORA)}."
)
_CORPUS_PATH = flags.DEFINE_string(
    "corpus_path", None, "text: comma list of files and patterns. c4: the data folder of TFDS."
)
_DOCUMENT = flags.DEFINE_string(
    "document", _DEFAULT.document, f"text: what a document is: {', '.join(DOCUMENT_FORMS)}."
)
_PACKAGES = flags.DEFINE_list(
    "packages", [], "docs: packages to read, 'python' for the standard library. Default: all."
)
_VOCABULARY = flags.DEFINE_string(
    "vocabulary", None, "SentencePiece .model file to use. Default: train one on the corpus."
)
_VOCABULARY_PIECES = flags.DEFINE_integer(
    "vocabulary_pieces", _DEFAULT.vocabulary_pieces, "Pieces of the vocabulary that is trained."
)
_NUM_SENTINELS = flags.DEFINE_integer(
    "num_sentinels", _DEFAULT.num_sentinels, "Sentinels above the pieces, to mark spans."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", _DEFAULT.root, "Folder in which the prepared folder is made."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the split and of the order of docs.")
_VALIDATION_FRACTION = flags.DEFINE_float(
    "validation_fraction", _DEFAULT.validation_fraction, "Share of documents for validation."
)
_MAX_BYTES = flags.DEFINE_integer(
    "max_bytes", None, "How much text to read. Default: all; docs: 16 MB."
)
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", None, "Training tokens to write. Default: all.")


@stopping.handled()
def main(argv: Sequence[str]) -> None:
    """Reads the flags, prepares, prints the folder."""
    del argv
    folder = prepare(
        DataConfig(
            corpus=_CORPUS.value,
            corpus_path=_CORPUS_PATH.value,
            document=_DOCUMENT.value,
            packages=tuple(_PACKAGES.value),
            vocabulary_path=_VOCABULARY.value,
            vocabulary_pieces=_VOCABULARY_PIECES.value,
            num_sentinels=_NUM_SENTINELS.value,
            root=_DATA_DIR.value,
            seed=_SEED.value,
            validation_fraction=_VALIDATION_FRACTION.value,
            max_bytes=_MAX_BYTES.value,
            max_tokens=_MAX_TOKENS.value,
        )
    )
    print(folder)


if __name__ == "__main__":
    programs.run(main)
