"""The synthetic tasks: deterministic, disjoint, balanced, and their labels follow the rules."""

import collections
import hashlib
import json

import pytest

from glue import tasks
from glue.data import synthetic
from trainers.errors import UserError

SINGULAR = dict(synthetic.NOUNS)
VERBS = {plural: singular for singular, plural, _ in synthetic.VERBS}


@pytest.mark.parametrize("name", tasks.SYNTHETIC)
def test_sizes_splits_and_balance(name):
    made = {split: synthetic.examples(name, split) for split in synthetic.SIZES}
    assert {split: len(rows) for split, rows in made.items()} == synthetic.SIZES
    inputs = [tuple(texts.values()) for rows in made.values() for texts, _ in rows]
    assert len(set(inputs)) == len(inputs)
    assert {label for _, label in made["test"]} == {-1}
    counts = collections.Counter(label for _, label in made["train"])
    classes = range(len(tasks.find(name).labels) or 6)
    assert sorted(counts) == list(classes)
    assert min(counts.values()) > 2000 / len(classes) * 0.3


def test_the_same_seed_gives_the_same_examples_on_every_machine():
    made = [synthetic.examples(name, "validation") for name in tasks.SYNTHETIC]
    assert made == [synthetic.examples(name, "validation") for name in tasks.SYNTHETIC]
    digest = hashlib.sha256(json.dumps(made).encode()).hexdigest()
    assert digest[:16] == "854aef58e3aa6e4d"
    assert made[0] != synthetic.examples(tasks.SYNTHETIC[0], "validation", seed=1)


def test_grammar_is_agreement_and_order():
    for texts, label in synthetic.examples("synthetic_grammar", "train"):
        words = texts["sentence"].split()
        plural = words[2] in SINGULAR.values()
        ordered = words[0] == words[4] == "the" and words[1] in synthetic.SYNONYMS
        agrees = words[3] in VERBS if plural else words[3] in VERBS.values()
        place = " ".join(words[6:-1]) in synthetic.PLACES
        assert label == int(ordered and agrees and place and words[5] in SINGULAR)


def test_sentiment_counts_denials():
    for texts, label in synthetic.examples("synthetic_sentiment", "train"):
        words = texts["sentence"].split()
        good = any(word in synthetic.GOOD for word in words)
        assert good != any(word in synthetic.BAD for word in words)
        assert label == int(good != ("not" in words or "never" in words))


def test_paraphrase_and_similarity_compare_the_statements():
    for texts, label in synthetic.examples("synthetic_paraphrase", "train"):
        assert label == int(_statement(texts["sentence1"]) == _statement(texts["sentence2"]))
    for texts, label in synthetic.examples("synthetic_similarity", "train"):
        first, second = (_statement(texts[field]) for field in ("sentence1", "sentence2"))
        assert label == sum(a == b for a, b in zip(first, second, strict=True))


def _statement(sentence):
    """Adjective, subject, verb, object and place, read back from a sentence."""
    words = sentence.split()
    place = " ".join(words[-4:-1])
    adjectives = {synonym: word for word, synonym in synthetic.SYNONYMS.items()}
    verbs = {form: forms[0] for forms in synthetic.VERBS for form in forms}
    nouns = {form: forms[0] for forms in synthetic.NOUNS for form in forms}
    if "by" in words:
        _, object_, _, verb, _, _, adjective, subject = words[:8]
    else:
        _, adjective, subject, verb, _, object_ = words[:6]
    adjective = adjectives.get(adjective, adjective)
    return adjective, nouns[subject], verbs[verb], nouns[object_], place


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="train, validation, test.*split='dev'"):
        synthetic.examples("synthetic_grammar", "dev")
