"""The model card of a fused folder: where it comes from, and what it computes."""

_EXACT = (
    "It computes what the source computes, up to rounding: every weight is made of blocks of the "
    "source's (Eq. 5 of Deep Fusion), the layers that read the last ones take the mean."
)
_RULE = (
    "It is not exact: the weights are blocks of the sources' (Eq. 5 of Deep Fusion), but its norms "
    "normalise the units of all sources together, so it computes something near the weighted mean "
    "of the sources' logits. It is meant to be trained on."
)
_NOISE = "Noise stands where no source's block does, so it computes something near the mean."


def card(plan, sources, files, command, result):
    """Text of a model card.

    Args:
        plan: The `Plan`.
        sources: `{file of a source: SHA-256}`.
        files: `{name of a written file: Digest}`.
        command: The command that asked for it, or "".
        result: A sentence about its check, or "".
    """
    first = plan.sources[0]
    is_self = len(plan.folders) == 1
    statement = _EXACT if plan.is_exact else _NOISE if is_self else _RULE
    lines = [
        "---",
        "library_name: transformers",
        "tags: [keras-fusion, merge]",
        "---",
        "",
        f"# Fused {first.class_name}",
        "",
        f"A {plan.summary}; {plan.parameters:,} parameters. {statement}",
        *([result] if result else []),
        *plan.notes,
        "",
        "| source | weight | file | SHA-256 |",
        "|---|---|---|---|",
        *_source_rows(plan, sources),
        "",
        "| written file | bytes | SHA-256 |",
        "|---|---|---|",
        *(f"| {name} | {digest.bytes:,} | {digest.sha256} |" for name, digest in files.items()),
    ]
    if command:
        lines += ["", "Written by", "", f"    {command}"]
    return "\n".join(lines) + "\n"


def _source_rows(plan, sources):
    for folder in plan.folders:
        pairs = zip(plan.sources, plan.weights, strict=True)
        share = sum(weight for source, weight in pairs if source is folder)
        for file in folder.files:
            name = folder.path.resolve().name
            yield f"| {name} | {share:.6g} | {file.name} | {sources[file]} |"
