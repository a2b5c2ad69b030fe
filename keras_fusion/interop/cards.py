"""The model card of a fused folder: where it comes from, and what it computes."""

import dataclasses
import hashlib
import pathlib

from keras_fusion.noise import Noise

_SELF = (
    "It computes what the source computes, up to rounding: every weight is made of blocks of the "
    "source's (Eq. 5 of Deep Fusion), the layers that read the last ones take the mean."
)
_GROUPED = (
    "It computes the weighted mean of the sources' logits, up to rounding: every weight is made of "
    "blocks of the sources' (Eq. 5 of Deep Fusion), and its norms normalise the units of each "
    "source apart."
)
_RULE = (
    "It is not exact: the weights are blocks of the sources' (Eq. 5 of Deep Fusion), but its norms "
    "normalise the units of all sources together, so it computes something near the weighted mean "
    "of the sources' logits. It is meant to be trained on."
)
_NOISE = "Noise stands where no source's block does, so it computes something near the mean."
_LOAD = "Load it with keras_fusion.families.load_preset."


@dataclasses.dataclass(frozen=True)
class Promise:
    """Promise of a fusion about the function of its result.

    Args:
        is_self: Whether all sources are one model.
        is_grouped: Whether the norms of the result treat each source's units apart.
        noise: `Noise` of η.
    """

    is_self: bool
    is_grouped: bool = False
    noise: Noise = Noise()

    @property
    def is_exact(self):
        """True where the result computes the mean of its sources, up to rounding."""
        if self.is_self:
            return self.noise.keeps_copies
        return self.is_grouped and not self.noise.scale

    @property
    def statement(self):
        """Sentences that say what the result computes."""
        if not (self.is_self or self.is_grouped):
            return _RULE
        exact = _SELF if self.is_self else _GROUPED
        statement = exact if self.is_exact else _NOISE
        return f"{statement} {_LOAD}" if self.is_grouped else statement


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts of a fusion that its model card states.

    Args:
        library: Library that loads the result, as model hubs name it.
        class_name: Class of the result.
        summary: What was done, in words.
        parameters: Number of values of the result's weights.
        promise: `Promise` of the fusion.
        shares: `{folder of a source: its weight in the mean}`.
        notes: Further sentences.
    """

    library: str
    class_name: str
    summary: str
    parameters: int
    promise: Promise
    shares: dict[pathlib.Path, float]
    notes: tuple[str, ...] = ()


def fusion_summary(num_sources, promise, norm, weights):
    """Words that say how models were fused.

    Args:
        num_sources: Number of sources.
        promise: `Promise` of the fusion.
        norm: `"property"` or `"rule"`.
        weights: Weight of each source in the mean.
    """
    kind = "copies of one model" if promise.is_self else "models"
    shares = ", ".join(f"{weight:.6g}" for weight in weights)
    noise = promise.noise.scale
    return f"fusion of {num_sources} {kind}, norm={norm}, weights={shares}, noise={noise}"


def growth_summary(factors, noise=0.0):
    """Words that say how a model was grown.

    Args:
        factors: `{axis: factor}`.
        noise: Scale of the noise.
    """
    growth = "growth of " + ", ".join(f"{axis} by {factor}" for axis, factor in factors.items())
    return f"{growth}, noise={noise}" if noise else growth


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
        f"A {facts.summary}; {facts.parameters:,} parameters. {facts.promise.statement}",
        *([result] if result else []),
        *facts.notes,
        "",
        _row("source", "weight", "file", "SHA-256"),
        "|---|---|---|---|",
        *(
            _row(folder.resolve().name, f"{share:.6g}", file.name, digest)
            for folder, share in facts.shares.items()
            for file, digest in sources.items()
            if file.parent == folder
        ),
        "",
        _row("written file", "bytes", "SHA-256"),
        "|---|---|---|",
        *(_row(name, f"{size:,}", digest) for name, (size, digest) in files.items()),
    ]
    if command:
        lines += ["", "Written by", "", f"    {' '.join(command.splitlines())}"]
    return "\n".join(lines) + "\n"


def _row(*cells):
    """A row of a table; a folder's name may hold what would end a cell or a row."""
    texts = (" ".join(cell.splitlines()).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(texts)} |"


def sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
