"""Cutting texts that are too long."""

from collections.abc import Iterator


def cut(text: str, longest: int) -> Iterator[str]:
    """Yields parts of a text of at most `longest` bytes of UTF-8, cut at white space.

    A part without white space may be cut anywhere between two characters.

    Example:
        >>> list(cut("one two three", 7))
        ['one two', 'three']
    """
    while len(text.encode()) > longest:
        head = text.encode()[: longest + 1].decode(errors="ignore")
        place = max(head.rfind(" "), head.rfind("\n"), head.rfind("\t"))
        if place <= 0:
            place = len(text.encode()[:longest].decode(errors="ignore"))
        yield text[:place].strip()
        text = text[place:].strip()
    if text:
        yield text
