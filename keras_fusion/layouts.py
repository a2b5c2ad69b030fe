"""Layouts: where each source's entries lie along one dimension of a fused array.

Layouts compose as dimensions do: `Layout.joined` is what a reshape makes of them,
`Layout.stacked` what a concatenation makes.
"""

import collections
import dataclasses

Run = collections.namedtuple("Run", ("target", "source", "length"))
Run.__doc__ = "Entries that lie side by side: where in the fused array, where in the source."


@dataclasses.dataclass(frozen=True)
class Layout:
    """Positions of the entries of each source along one dimension of a fused array.

    Args:
        size: Size of the fused dimension.
        sizes: Size of each source's dimension.
        own: For each source, the `Run`s that are its own.
        shared: For each source, the `Run`s whose targets all sources have in common.

    Examples:
        >>> grown = Layout.blocks((2, 3))
        >>> Layout.stacked([grown, Layout.whole(4, 2)]).size
        9
        >>> Layout.joined(grown, before=2).own[1]
        (Run(target=2, source=0, length=3), Run(target=7, source=3, length=3))
    """

    size: int
    sizes: tuple[int, ...]
    own: tuple[tuple[Run, ...], ...]
    shared: tuple[tuple[Run, ...], ...]

    @classmethod
    def blocks(cls, widths):
        """Layout of a dimension that grew: one block for each source, one behind the other."""
        starts = [sum(widths[:source]) for source in range(len(widths))]
        own = tuple((Run(start, 0, width),) for start, width in zip(starts, widths, strict=True))
        return cls(sum(widths), tuple(widths), own, ((),) * len(widths))

    @classmethod
    def whole(cls, size, num_sources):
        """Layout of a dimension that did not grow: every source has all of it."""
        runs = ((Run(0, 0, size),),) * num_sources
        return cls(size, (size,) * num_sources, ((),) * num_sources, runs)

    @classmethod
    def joined(cls, layout, before=1, after=1):
        """Layout of the product, in row-major order, of `before`, a dimension, and `after`."""
        if before == after == 1:
            return layout

        def repeated(runs, size):
            return _merged(
                Run(
                    (index * layout.size + run.target) * after,
                    (index * size + run.source) * after,
                    run.length * after,
                )
                for index in range(before)
                for run in runs
            )

        return cls(
            before * layout.size * after,
            tuple(before * size * after for size in layout.sizes),
            tuple(map(repeated, layout.own, layout.sizes)),
            tuple(map(repeated, layout.shared, layout.sizes)),
        )

    @classmethod
    def stacked(cls, layouts):
        """Layout of the concatenation of dimensions."""
        num_sources = len(layouts[0].sizes)
        own, shared = [[] for _ in range(num_sources)], [[] for _ in range(num_sources)]
        size, sizes = 0, [0] * num_sources
        for layout in layouts:
            for source in range(num_sources):
                for runs, added in ((own, layout.own), (shared, layout.shared)):
                    runs[source] += [
                        Run(run.target + size, run.source + sizes[source], run.length)
                        for run in added[source]
                    ]
                sizes[source] += layout.sizes[source]
            size += layout.size
        return cls(size, tuple(sizes), tuple(map(_merged, own)), tuple(map(_merged, shared)))

    def divided(self, factor):
        """Layout of this dimension split, in row-major order, into two: of the first of them.

        Args:
            factor: Size of the second.

        Returns:
            A `Layout`, or None where a block's border lies inside the second.
        """
        runs = [run for kind in (self.own, self.shared) for source in kind for run in source]
        if any(value % factor for run in runs for value in run):
            return None

        def divide(source):
            return tuple(Run(*(value // factor for value in run)) for run in source)

        return Layout(
            self.size // factor,
            tuple(size // factor for size in self.sizes),
            tuple(map(divide, self.own)),
            tuple(map(divide, self.shared)),
        )

    @property
    def is_blocks(self):
        """True where each source is one run, one source behind the other."""
        return self == Layout.blocks(self.sizes)

    @property
    def grows(self):
        """True where a source has entries of its own."""
        return any(self.own)

    @property
    def widths(self):
        """Number of each source's own entries."""
        return tuple(sum(run.length for run in runs) for runs in self.own)

    def runs(self, source):
        """All runs of a source, its own and the shared ones, in the order of their targets."""
        return tuple(sorted(self.own[source] + self.shared[source]))

    def entries(self, source, shared=False):
        """Positions of a source's own entries, or of the shared ones: in the array, in the source.

        Args:
            source: Number of the source.
            shared: Whether the shared entries are meant.
        """
        runs = (self.shared if shared else self.own)[source]
        return tuple(
            [getattr(run, end) + entry for run in runs for entry in range(run.length)]
            for end in ("target", "source")
        )

    def indices(self, source):
        """Positions in the fused dimension of a source's entries, in the source's order."""
        runs = sorted(self.runs(source), key=lambda run: run.source)
        return [run.target + entry for run in runs for entry in range(run.length)]


def _merged(runs):
    """Runs in the order of their targets, those that continue each other as one."""
    merged = []
    for run in sorted(runs):
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.target + last.length == run.target
            and last.source + last.length == run.source
        ):
            merged[-1] = Run(last.target, last.source, last.length + run.length)
        elif run.length:
            merged.append(run)
    return tuple(merged)
