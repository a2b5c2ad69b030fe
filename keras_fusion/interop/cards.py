"""The model card of a fused folder: where it comes from, and what it computes."""

import dataclasses
import hashlib
import pathlib

_EXACT = (
    "It computes what the source computes, up to rounding: every weight is made of blocks of the "
    "source's (Eq. 5 of Deep Fusion), the layers that read the last ones take the mean."
)
_GROUPED = (
    "It computes the weighted mean of the sources' logits, up to rounding: every weight is made of "
    "blocks of the sources' (Eq. 5 of Deep Fusion), and its norms normalise the units of each "
    "source apart. Load it with keras_fusion.families.load_preset."
)
_RULE = (
    "It is not exact: the weights are blocks of the sources' (Eq. 5 of Deep Fusion), but its norms "
    "normalise the units of all sources together, so it computes something near the weighted mean "
    "of the sources' logits. It is meant to be trained on."
)
_NOISE = "Noise stands where no source's block does, so it computes something near the mean."


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts of a fusion that its model card states.

    Args:
        library: Library that loads the result, as model hubs name it.
        class_name: Class of the result.
        summary: What was done, in words.
        parameters: Number of values of the result's weights.
        is_exact: Whether it computes the mean of its sources, up to rounding.
        shares: `{folder of a source: its weight in the mean}`.
        notes: Further sentences.
    """

    library: str
    class_name: str
    summary: str
    parameters: int
    is_exact: bool
    shares: dict[pathlib.Path, float]
    notes: tuple[str, ...] = ()

    @property
    def statement(self):
        """Sentences that say what the result computes."""
        if len(self.shares) == 1:
            return _EXACT if self.is_exact else _NOISE
        return _GROUPED if self.is_exact else _RULE


def card(facts, sources, files, command, result):
    """Text of a model card.

    Args:
        facts: `Facts`.
        sources: `{file of a source: SHA-256}`.
        files: `{name of a written file: (bytes, SHA-256)}`.
        command: The command that asked for it, or "".
        result: A sentence about its check, or "".
    """
    lines = [
        "---",
        f"library_name: {facts.library}",
        "tags: [keras-fusion, merge]",
        "---",
        "",
        f"# Fused {facts.class_name}",
        "",
        f"A {facts.summary}; {facts.parameters:,} parameters. {facts.statement}",
        *([result] if result else []),
        *facts.notes,
        "",
        "| source | weight | file | SHA-256 |",
        "|---|---|---|---|",
        *(
            f"| {folder.resolve().name} | {share:.6g} | {file.name} | {digest} |"
            for folder, share in facts.shares.items()
            for file, digest in sources.items()
            if file.parent == folder
        ),
        "",
        "| written file | bytes | SHA-256 |",
        "|---|---|---|",
        *(f"| {name} | {size:,} | {digest} |" for name, (size, digest) in files.items()),
    ]
    if command:
        lines += ["", "Written by", "", f"    {command}"]
    return "\n".join(lines) + "\n"


def sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
