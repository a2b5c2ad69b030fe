"""Four small tasks made by rules, so that a demo and the tests need no download.

They have the form of GLUE's tasks and nothing else: the sentences come from a grammar of a few
words, and a score on them says only that fine-tuning and evaluation work.

    synthetic_grammar     1 where the verb agrees with its subject and the words are in order
    synthetic_sentiment   1 where the adjective is positive, "not" and "never" counted
    synthetic_paraphrase  1 for the same statement in other words (passive, synonyms)
    synthetic_similarity  0 to 5: the number of parts, of five, that two sentences share

The same seed gives the same examples, on every machine; no input is in two splits.
"""

import random

from glue.tasks import HIDDEN
from trainers.errors import check_choice

SIZES = {"train": 2000, "validation": 400, "test": 400}

NOUNS = (
    ("dog", "dogs"), ("cat", "cats"), ("teacher", "teachers"), ("child", "children"),
    ("farmer", "farmers"), ("woman", "women"), ("doctor", "doctors"), ("king", "kings"),
    ("horse", "horses"), ("painter", "painters"), ("mouse", "mice"), ("singer", "singers"),
)  # fmt: skip
# Singular, plural, passive.
VERBS = (
    ("chases", "chase", "chased"), ("sees", "see", "seen"), ("helps", "help", "helped"),
    ("follows", "follow", "followed"), ("finds", "find", "found"), ("calls", "call", "called"),
    ("knows", "know", "known"), ("paints", "paint", "painted"),
)  # fmt: skip
SYNONYMS = {
    "old": "aged", "small": "little", "quick": "fast", "sad": "unhappy", "clever": "smart",
    "rich": "wealthy",
}  # fmt: skip
PLACES = ("in the garden", "near the river", "at the market", "behind the house", "on the road")
GOOD = ("good", "great", "charming", "brilliant", "lovely", "funny", "moving", "superb")
BAD = ("bad", "dull", "awful", "boring", "clumsy", "tedious", "weak", "terrible")
_THINGS = ("film", "story", "play", "plot", "song", "book", "acting", "ending")
_FRAMES = (
    "the {} was {}",
    "i found the {} {}",
    "what a day : the {} was {}",
    "they say the {} is {}",
)
_DEGREES = ("", "very ", "rather ", "truly ")
_DENIALS = ("not ", "never ")


def examples(
    name: str, split: str, seed: int = 0, sizes: dict[str, int] | None = None
) -> list[tuple[dict[str, str], int | float]]:
    """Makes a split of a task whose splits have these sizes, by default `SIZES`.

    Of each example: its texts by feature, and its label: a class, a number, or -1 in "test".
    """
    sizes = sizes or SIZES
    check_choice(sizes, split=split)
    rng = random.Random(f"{seed}:{name}")
    seen = set()
    for part, size in sizes.items():
        made = []
        while len(made) < size:
            texts, label = _RULES[name](rng)
            key = tuple(texts.values())
            if key not in seen:
                seen.add(key)
                made.append((texts, HIDDEN if part == "test" else label))
        if part == split:
            break
    return made


def _clause(rng: random.Random) -> dict:
    """A statement as its parts: subject, verb, object, place."""
    subject, other = rng.sample(NOUNS, 2)
    return {
        "adjective": rng.choice(list(SYNONYMS)),
        "subject": subject,
        "verb": rng.choice(VERBS),
        "object": other,
        "place": rng.choice(PLACES),
        "plural": rng.random() < 0.5,
    }


def _active(clause: dict, agrees: bool = True) -> str:
    plural = clause["plural"]
    subject, verb = clause["subject"][plural], clause["verb"][plural == agrees]
    return (
        f"the {clause['adjective']} {subject} {verb} the {clause['object'][0]} {clause['place']} ."
    )


def _passive(clause: dict) -> str:
    return (
        f"the {clause['object'][0]} is {clause['verb'][2]} by the {clause['adjective']} "
        f"{clause['subject'][clause['plural']]} {clause['place']} ."
    )


def _grammar(rng: random.Random) -> tuple[dict[str, str], int]:
    clause = _clause(rng)
    if rng.random() < 0.5:
        return {"sentence": _active(clause)}, 1
    if rng.random() < 0.5:
        return {"sentence": _active(clause, agrees=False)}, 0
    words = _active(clause).split()
    place = rng.randrange(len(words) - 2)
    words[place], words[place + 1] = words[place + 1], words[place]
    return {"sentence": " ".join(words)}, 0


def _sentiment(rng: random.Random) -> tuple[dict[str, str], int]:
    positive = rng.random() < 0.5
    denied = rng.random() < 0.4
    word = rng.choice(GOOD if positive != denied else BAD)
    said = (rng.choice(_DENIALS) if denied else "") + rng.choice(_DEGREES) + word
    parts = [rng.choice(_FRAMES).format(rng.choice(_THINGS), said)]
    if rng.random() < 0.5:
        parts.append(f"{rng.choice(NOUNS)[0]} and all")
    return {"sentence": " , ".join(parts) + " ."}, int(positive)


def _paraphrase(rng: random.Random) -> tuple[dict[str, str], int]:
    clause = _clause(rng)
    other = dict(clause)
    equivalent = rng.random() < 0.5
    if not equivalent:
        part = rng.choice(("verb", "place", "roles"))
        if part == "roles":
            other["subject"], other["object"] = clause["object"], clause["subject"]
        else:
            choices = {"verb": VERBS, "place": PLACES}[part]
            other[part] = rng.choice([choice for choice in choices if choice != clause[part]])
    if rng.random() < 0.5:
        other["adjective"] = SYNONYMS[clause["adjective"]]
    said = _passive(other) if rng.random() < 0.5 else _active(other)
    return {"sentence1": _active(clause), "sentence2": said}, int(equivalent)


def _similarity(rng: random.Random) -> tuple[dict[str, str], float]:
    clause, other = _clause(rng), _clause(rng)
    other["plural"] = clause["plural"]
    parts = ("adjective", "subject", "verb", "object", "place")
    for part in rng.sample(parts, rng.randrange(len(parts) + 1)):
        other[part] = clause[part]
    same = sum(clause[part] == other[part] for part in parts)
    return {"sentence1": _active(clause), "sentence2": _active(other)}, float(same)


_RULES = {
    "synthetic_grammar": _grammar,
    "synthetic_sentiment": _sentiment,
    "synthetic_paraphrase": _paraphrase,
    "synthetic_similarity": _similarity,
}
