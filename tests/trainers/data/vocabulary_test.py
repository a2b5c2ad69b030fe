"""The vocabulary: special ids, sentinels, two tokenizers with the same ids, what is refused."""

import io

import numpy as np
import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from trainers.data import vocabulary as vocabulary_lib
from trainers.data.vocabulary import Vocabulary
from trainers.errors import UserError


@pytest.fixture(scope="module")
def texts(words_file) -> list[str]:
    return words_file.read_text(encoding="utf-8").split("\n\n")


@pytest.fixture(scope="module")
def vocabulary(texts) -> Vocabulary:
    return Vocabulary(vocabulary_lib.train(texts, 96), num_sentinels=32)


def test_sizes_and_special_ids(vocabulary):
    assert (vocabulary.num_pieces, vocabulary.size, vocabulary.padded_size) == (96, 128, 128)
    assert vocabulary.first_sentinel == 127
    processor = sentencepiece.SentencePieceProcessor(model_proto=vocabulary.model)
    assert [processor.id_to_piece(i) for i in range(3)] == ["<pad>", "</s>", "<unk>"]
    assert processor.bos_id() == -1


@pytest.mark.parametrize(
    ("pieces", "sentinels", "size", "padded"),
    [(32_000, 100, 32_100, 32_128), (480, 32, 512, 512), (481, 32, 513, 640)],
)
def test_padding(vocabulary, pieces, sentinels, size, padded):
    resized = Vocabulary(vocabulary.model, sentinels)
    resized.num_pieces = pieces
    assert (resized.size, resized.padded_size, resized.first_sentinel) == (size, padded, size - 1)


def test_training_is_deterministic(texts, vocabulary):
    assert vocabulary_lib.train(iter(texts), 96) == vocabulary.model


def test_encode_decode_round_trip(texts, vocabulary):
    for text, ids in zip(texts, vocabulary.encode(texts, "sentencepiece"), strict=True):
        assert ids.dtype == np.int32
        assert ids.min() > 2 and ids.max() < 96
        assert vocabulary.decode(ids) == text.strip()


def test_decode_writes_sentinels_and_leaves_out_padding(vocabulary):
    (ids,) = vocabulary.encode(["bada gelu"], "sentencepiece")
    assert vocabulary.decode([127, *ids, 126, *ids, 1, 0, 0, 500]) == (
        "<extra_id_0> bada gelu <extra_id_1> bada gelu"
    )


def test_both_tokenizers_on_words(texts, vocabulary):
    left = vocabulary.encode(texts, "tensorflow_text")
    right = vocabulary.encode(texts, "sentencepiece")
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype == np.int32
        np.testing.assert_array_equal(a, b)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_both_tokenizers_on_any_unicode(vocabulary, texts):
    left = vocabulary.encode(texts, "tensorflow_text")
    right = vocabulary.encode(texts, "sentencepiece")
    assert [ids.tolist() for ids in left] == [ids.tolist() for ids in right]


@pytest.mark.parametrize("tokenizer", ["tensorflow_text", "sentencepiece"])
def test_empty_texts(vocabulary, tokenizer):
    assert vocabulary.encode([], tokenizer) == []
    assert [ids.tolist() for ids in vocabulary.encode(["", "  "], tokenizer)] == [[], []]


@pytest.mark.parametrize("tokenizer", ["tensorflow_text", "sentencepiece"])
def test_an_error_of_the_source_comes_through(vocabulary, tokenizer):
    def chunks():
        yield ["bada"]
        raise UserError("Expected UTF-8.")

    with pytest.raises(UserError, match="^Expected UTF-8.$"):
        list(vocabulary.encode_chunks(chunks(), tokenizer))


def test_tensorflow_stays_unloaded_where_it_is_not_the_backend(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert vocabulary_lib.default_tokenizer() == "sentencepiece"
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert vocabulary_lib.default_tokenizer() == "tensorflow_text"
    monkeypatch.setattr(vocabulary_lib.importlib.util, "find_spec", lambda name: None)
    assert vocabulary_lib.default_tokenizer() == "sentencepiece"


def test_from_file(vocabulary, tmp_path):
    path = tmp_path / "words.model"
    path.write_bytes(vocabulary.model)
    loaded = Vocabulary.from_file(path, 32)
    assert loaded.sha256 == vocabulary.sha256
    assert loaded.size == vocabulary.size


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"Received: vocabulary=.*none\.model .No such file"):
        Vocabulary.from_file(tmp_path / "none.model")


@pytest.mark.parametrize("contents", [b"", b"some words\n" * 20, b"\x00" * 100])
def test_no_model(tmp_path, contents):
    path = tmp_path / "bad.model"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=r"Received: vocabulary=.*bad\.model, which is none"):
        Vocabulary.from_file(path)


def test_a_truncated_model_is_refused(vocabulary):
    with pytest.raises(UserError, match="Expected a SentencePiece model"):
        Vocabulary(vocabulary.model[: len(vocabulary.model) // 2])


def test_a_model_with_other_special_ids_is_refused(texts):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=96, minloglevel=3
    )
    with pytest.raises(UserError, match=r"Received: vocabulary=words with \(-1, 2, 0\)"):
        Vocabulary(model.getvalue(), source="words")


@pytest.mark.parametrize(("pieces", "reason"), [(100_000, "too high"), (8, "smaller than")])
def test_a_number_of_pieces_that_does_not_fit(texts, pieces, reason):
    with pytest.raises(UserError, match=f"{reason}.*Received: vocabulary_pieces={pieces}"):
        vocabulary_lib.train(texts, pieces)


def test_long_lines_are_cut_and_not_left_out():
    word = "zyzzyva " * 9_000
    model = Vocabulary(vocabulary_lib.train([word, "one two three " * 50], 16), 0)
    assert "?" not in model.decode(model.encode(["zyzzyva"])[0])


def test_sentinels_of_a_models_own(tmp_path):
    """As in mT5: the last pieces are <extra_id_1>, <extra_id_0>."""

    def model(symbols):
        file = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["some words to train on", "and more words"] * 20),
            model_writer=file,
            vocab_size=18,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=3,
        )
        proto = sentencepiece_model_pb2.ModelProto.FromString(file.getvalue())
        for symbol in symbols:
            proto.pieces.add(piece=symbol, score=0.0, type=4)
        return proto.SerializeToString()

    with_sentinels = Vocabulary(model(["\u2581<extra_id_1>", "\u2581<extra_id_0>"]), 100)
    assert (with_sentinels.num_pieces, with_sentinels.num_sentinels) == (18, 2)
    assert (with_sentinels.size, with_sentinels.first_sentinel) == (20, 19)
    assert with_sentinels.decode([19, 18]) == "<extra_id_0> <extra_id_1>"
    with pytest.raises(UserError, match="ends with <extra_id_1>"):
        Vocabulary(model(["<extra_id_0>", "<extra_id_1>"]), 100)


def test_training_on_nothing():
    with pytest.raises(UserError, match="Received: vocabulary_pieces=96"):
        vocabulary_lib.train(["", "\n"], 96)
