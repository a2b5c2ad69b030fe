"""Vocabularies of folders of transformers, to be compared piece by piece.

Sources whose pieces have other numbers cannot be fused: row 17 of every embedding must mean the
same piece.
"""

import contextlib
import json
import pathlib

from keras_fusion.errors import FusionError, docs_page
from keras_fusion.optional import optional

NOT_COMPARED = "The sources hold no tokenizers of one kind, so the vocabularies were not compared."


def check_equal(paths):
    """Refuses folders with different vocabularies.

    Args:
        paths: The folders.

    Returns:
        Whether there was anything to compare: a kind of file that all folders hold.

    Raises:
        FusionError: Naming the first piece in which two vocabularies differ; or they are of
            SentencePiece and differ in some byte, and sentencepiece is not installed.
    """
    paths = [pathlib.Path(path) for path in dict.fromkeys(paths)]
    if len(paths) == 1:
        return True
    for kind, read in _KINDS.items():
        if not all((path / kind).is_file() for path in paths):
            continue
        decoders = _decoders(paths)
        contents = {
            (_bytes(path / kind), _bytes(path / _ADDED), tuple(sorted(decoder.items())))
            for path, decoder in zip(paths, decoders, strict=True)
        }
        if len(contents) == 1:
            return True
        first, *others = [
            _read(path, kind, read) | decoder for path, decoder in zip(paths, decoders, strict=True)
        ]
        for path, other in zip(paths[1:], others, strict=True):
            _compare(paths[0] / kind, first, path / kind, other)
        return True
    return False


def _bytes(path):
    return path.read_bytes() if path.is_file() else b""


def _read(path, kind, read):
    """Pieces by their numbers; those that were added to a file that has none of its own, too."""
    with _damages(path / kind):
        pieces = read(path / kind)
        if kind != _TOKENIZER and (path / _ADDED).is_file():
            pieces |= _table(path / _ADDED)
        sorted(pieces)
        return pieces


def _decoders(paths):
    """Pieces that the settings of each tokenizer add; of none where not all say, as old ones."""
    decoders = [_decoder(path / _SETTINGS) for path in paths]
    return decoders if all(decoders) else [{}] * len(paths)


def _decoder(path):
    if not path.is_file():
        return {}
    with _damages(path):
        added = _json(path).get("added_tokens_decoder") or {}
        return {int(number): str(token["content"]) for number, token in added.items()}


@contextlib.contextmanager
def _damages(path):
    """Context in which a file that holds no vocabulary is an error that names it."""
    try:
        yield
    except FusionError:
        raise
    # A file may hold anything: pieces without numbers, or numbers that are texts.
    except (AttributeError, KeyError, OSError, RecursionError, RuntimeError, TypeError, ValueError):
        raise FusionError(
            f"Expected a vocabulary. Received: {str(path)!r}, which holds none. Restore the file."
        ) from None


def _compare(path, pieces, other_path, others):
    for number in sorted(set(pieces) | set(others)):
        if pieces.get(number) != others.get(number):
            raise FusionError(
                f"cannot fuse models of different vocabularies: piece {number} is "
                f"{pieces.get(number)!r} in {str(path)!r}, {others.get(number)!r} in "
                f"{str(other_path)!r}; give models that share one tokenizer: "
                f"{docs_page('folders', 'what-is-refused')}"
            )


def _tokenizer(path):
    content = _json(path)
    vocabulary = (content.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, dict):
        pieces = {number: piece for piece, number in vocabulary.items()}
    else:
        pieces = {number: entry[0] for number, entry in enumerate(vocabulary)}
    for added in content.get("added_tokens") or []:
        pieces[added["id"]] = added["content"]
    return pieces


def _table(path):
    return {number: piece for piece, number in _json(path).items()}


def _lines(path):
    return dict(enumerate(path.read_text("utf-8").splitlines()))


def _sentencepiece(path):
    model = optional("sentencepiece").SentencePieceProcessor(model_file=str(path))
    return {number: model.id_to_piece(number) for number in range(model.get_piece_size())}


def _json(path):
    return json.loads(path.read_text("utf-8"))


_ADDED = "added_tokens.json"
_SETTINGS = "tokenizer_config.json"
_TOKENIZER = "tokenizer.json"
# The first kind that all folders have counts.
_KINDS = {
    _TOKENIZER: _tokenizer,
    "vocab.json": _table,
    "vocab.txt": _lines,
    "spiece.model": _sentencepiece,
    "sentencepiece.bpe.model": _sentencepiece,
    "tokenizer.model": _sentencepiece,
    "vocabulary.spm": _sentencepiece,
}
