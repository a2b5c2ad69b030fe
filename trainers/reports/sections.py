"""A part of a page."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and the tables and pictures under it."""

    title: str
    blocks: tuple = ()
    paragraphs: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
