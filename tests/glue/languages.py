"""A text whose vocabulary can write the labels of the synthetic tasks."""

from glue.data import synthetic


def write_text(path):
    """Sentences of the synthetic tasks, each followed by all labels, one paragraph per sentence."""
    labels = "not_equivalent equivalent unacceptable acceptable not_entailment 0.1 2.3 4.5 6.7 8.9"
    rows = synthetic.examples("synthetic_grammar", "train", sizes={"train": 300})
    text = [f"grammar sentence: {texts['sentence']} {labels}" for texts, _ in rows]
    path.write_text("\n\n".join(text), encoding="utf-8")
