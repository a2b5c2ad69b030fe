"""Fusing a family's models from their configurations and arrays: the wide configuration and arrays.

Whatever holds the models (KerasHub in memory, folders of transformers) hands over names and arrays;
nothing here builds or reads a model.
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping

import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.families.notation import EQUAL, KEPT, NORM
from keras_fusion.families.table import Family, Names, matches
from keras_fusion.layers import checks
from keras_fusion.operator import FusedArray, Noise, count_not_finite
from keras_fusion.options import COUNTS, BlockOptions, is_count

# Fields of a configuration that say nothing about what a network computes.
_FREE = (
    "_*",
    "name",
    "trainable",
    "**dropout**",
    "**pdrop",
    "**layerdrop",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
    "**initializer_**",
    "init_std",
)


@dataclasses.dataclass(frozen=True)
class Growth:
    """Options of a fusion of stock models.

    Args:
        weights: Weight of each source in the mean.
        grow: Axes that grow; None for all.
        noise: `Noise` of η.
        shares: Shares of the copies in every block; None for Eq. 5's diagonal.
    """

    weights: tuple[float, ...]
    grow: frozenset | None = None
    noise: Noise = Noise()
    shares: tuple[float, ...] | None = None


def growths_by(names, factors, options=BlockOptions()):  # noqa: B008 - it is frozen
    """Yields a `Growth` of one model for each factor, with the axes that grow by it.

    Args:
        names: `Names` of its family.
        factors: `{axis: factor}`; the heads of the keys grow with those of the queries.
        options: `BlockOptions` of the copies.

    Raises:
        FusionError: No axis, or a factor that cannot be a number of copies.
    """
    is_growth = isinstance(factors, Mapping) and factors
    if not is_growth or not all(map(is_count, factors.values())):
        raise FusionError(
            f"axes grow by {COUNTS}. Received: {factors!r}; give a dictionary such as {{'mlp': 2}}"
        )
    for factor in dict.fromkeys(factors.values()):
        axes = {axis for axis, times in factors.items() if times == factor}
        if "heads" in axes and "key_heads" in names.sizes:
            axes.add("key_heads")
        weights = (1 / factor,) * factor
        yield Growth(weights, frozenset(axes), options.noise, options.shares(factor))


class FamilyFusion:
    """The fusion of several models of one family.

    Args:
        family: The `Family`.
        names: Its `Names` in the library that the models are of.
        configs: Configuration of each source.
        arrays: `{name: array-like}` of each source; names are those of the first source. What
            follows a `#` only tells weights of one name apart.
        growth: `Growth`.
        is_exact: Whether norms that all heads share must be equal; else their mean is taken, with
            a warning.

    Attributes:
        config: The fused configuration.
        arrays: `{name: array-like}` of the fused model, each computed when it is read.
        blocks: `{name: FusedArray}` of all but what is kept.
        widths: `hidden` of each source, where it grows; else None.
        readouts: Names of the weights that a tied head alone reads.
        averaged: Names of the norms of which the means were taken.

    Raises:
        FusionError: Naming everything that keeps the sources from being fused.
    """

    def __init__(
        self, family: Family, names: Names, configs, arrays, growth: Growth, is_exact=True
    ):
        self.names, self.family, self.growth = names, family, growth
        self._is_exact, self.averaged = is_exact, []
        self._configs = list(configs)
        self._grow = set(names.sizes) if growth.grow is None else set(growth.grow)
        checks.raise_mismatches(self._mismatches(arrays))
        self._entries = {name: names.entry(_stem(name)) for name in arrays[0]}
        self.readouts = names.readouts(map(_stem, arrays[0]), configs[0])
        self.config = self._wide_config()
        self.widths = None
        if "hidden" in self._grow:
            self.widths = tuple(self._size(config, "hidden") for config in configs)
        self.blocks, self.arrays = {}, {}
        for name in arrays[0]:
            self.arrays[name] = self._fused(name, [source[name] for source in arrays])
        if self.averaged:
            warnings.warn(
                f"{len(self.averaged)} norms that all heads share differ between the sources; the "
                f"fused model has their means, such as `{self.averaged[0]}`. Measure what that "
                "costs with kf.fusion_gap",
                stacklevel=4,
            )

    @property
    def norms(self):
        """Names of the weights of the norms over what grows."""
        return {
            name
            for name, entry in self._entries.items()
            if entry.kind == NORM and self._growing(entry)
        }

    def factor(self, name, source):
        """Number that a source's weight is multiplied by, besides AVG."""
        entry = self._entries[name]
        if not self._growing(entry):
            return 1.0
        factor = 1.0
        is_readout = _stem(name) in self.readouts
        if is_readout:
            n = len(self._configs)
            factor *= 1 / n if self.growth.shares else self.growth.weights[source]
        if "hidden" in self._grow:
            ratio = sum(self.widths) / self.widths[source]
            if is_readout and (self._scales_embedding() or self._scales_logits()):
                factor *= math.sqrt(ratio)
            if matches(_stem(name), self.names.embedding) and self._scales_embedding():
                factor /= math.sqrt(ratio)
        return factor

    def readout_factor(self, source):
        """Number that a source's part of a tied head's readout is multiplied by; 1 without one."""
        return self.factor(min(self.readouts), source) if self.readouts else 1.0

    def _scales_embedding(self):
        names = self.names
        flag = names.embedding_flag
        return bool(names.embedding) and (flag is None or bool(self._configs[0].get(flag)))

    def _scales_logits(self):
        names = self.names
        return names.logits_over_root and self._configs[0].get(names.logits_flag, True) is not False

    def _growing(self, entry):
        grown = self._grow | {f"{axis}'" for axis in self._grow}
        return {factor for dim in entry.dims for factor in dim if factor in grown}

    def _fused(self, name, sources):
        entry = self._entries[name]
        growing = self._growing(entry)
        if entry.kind == KEPT:
            return sources[0]
        axes = entry.axes({"head_dim": self.names.heads_size(self._configs[0])})
        if entry.kind == EQUAL and not growing:
            self._check_shared(name, sources)
            axes = dataclasses.replace(axes, averages=True)
        factors = [self.factor(name, source) for source in range(len(sources))]
        offset = 1 if self.family.scales_by_one_plus and set(factors) != {1.0} else 0
        offset = offset if entry.kind == NORM else 0
        if offset:
            # s' = f·(1 + s) − 1, in single precision: a bfloat16 close to 1 has eight bits.
            dtype = sources[0].dtype
            sources = [np.asarray(array, np.float32) + 1 for array in sources]
        array = FusedArray(
            sources,
            axes,
            growing,
            noise=self.growth.noise,
            path=name,
            factors=factors,
            weights=list(self.growth.weights),
            shares=self.growth.shares,
        )
        self.blocks[name] = array
        if not offset:
            return array
        values = array[...] - 1
        with np.errstate(over="ignore"):
            if count_not_finite(values.astype(dtype)):
                raise FusionError(
                    f"weight `{name}` times {max(factors):.4g} is too large for {dtype}; load the "
                    "sources in another dtype"
                )
        return values

    def _check_shared(self, name, sources):
        """Refuses, or notes, a weight that all heads share and that differs between sources."""
        first, *others = (np.asarray(source) for source in sources)
        if all(np.array_equal(first, other) for other in others):
            return
        if self._is_exact:
            raise FusionError(
                f"weight `{name}` is shared by all heads, so it must be equal in every source; "
                "use norm='rule', which takes the mean, or fuse a model with itself"
            )
        self.averaged.append(name)

    def _size(self, config, axis):
        return self.names.value(config, self.names.sizes[axis][0])

    def _wide_config(self):
        config_of_first, names = self._configs[0], self.names
        config = dict(config_of_first)
        for axis in self._grow:
            for field in names.sizes[axis]:
                config[field] = sum(names.value(source, field) for source in self._configs)
        for axis in set(names.sizes) - self._grow:
            for field in names.sizes[axis]:
                if config.get(field) is None and field in names.defaults:
                    # Its default would follow another field that grows.
                    config[field] = names.value(config_of_first, field)
        if names.head_dim and self._grow & {"heads", "hidden"}:
            config[names.head_dim] = names.heads_size(self._configs[0])
        self._check_divides(config)
        return config

    def _check_divides(self, config):
        """Refuses heads that divide the hidden size of the sources and not that of the result."""
        if not self.names.heads_divide_hidden:
            return
        pairs = [
            [self._size(sizes, axis) for axis in ("hidden", "heads")]
            for sizes in (*self._configs, config)
        ]
        *divided, (hidden, heads) = pairs
        if hidden % heads and not any(width % number for width, number in divided):
            raise FusionError(
                f"{self.names.class_names[0]} takes a hidden size that its heads divide. Received: "
                f"{hidden} with {heads} heads; grow them by another factor"
            )

    def _mismatches(self, arrays):
        names, configs = self.names, self._configs
        first, *others = configs
        unknown = self._grow - set(names.sizes)
        messages = [
            f"axis `{axis}` is none of {tuple(names.sizes)}, which can grow"
            for axis in sorted(unknown)
        ]
        sizes = {field for fields in names.sizes.values() for field in fields}
        for field in sorted({field for config in configs for field in config}):
            if field in sizes or field == names.head_dim:
                continue
            if matches(field, (*_FREE, *names.free)):
                continue
            values = [names.value(config, field) for config in configs]
            if any(value != values[0] for value in values):
                messages.append(f"{field}: " + " vs ".join(map(repr, values)))
        # A decoder may have other heads than the encoder.
        head_sizes = [names.heads_sizes(config) for config in configs]
        if len(set(head_sizes)) > 1:
            messages.append(
                "size of an attention head: "
                + " vs ".join(", ".join(map(str, sizes)) for sizes in head_sizes)
            )
        if "key_heads" in names.sizes:
            ratios = [
                self._size(config, "heads") // self._size(config, "key_heads") for config in configs
            ]
            if len(set(ratios)) > 1:
                messages.append(
                    "query heads of each key head: "
                    + " vs ".join(map(str, ratios))
                    + "; repeat the key heads of the one with more, with KerasHub by "
                    "kf.families.repeat_key_heads"
                )
            if ("heads" in self._grow) != ("key_heads" in self._grow):
                messages.append("heads and key_heads grow together")
        if len(self._grow & {"heads", "hidden"}) == 1 and names.head_dim is None:
            messages.append(
                f"heads and hidden of {names.class_names[0]} grow together, because the size of a "
                "head is the hidden size over their number"
            )
        if any(config.get(names.head_dim_scales) is False for config in configs):
            ratios = [
                self._size(config, "hidden") / self._size(config, "heads") for config in configs
            ]
            if len(set(ratios)) > 1 or len(self._grow & {"hidden", "heads"}) == 1:
                messages.append(
                    f"{names.head_dim_scales}=False: attention is scaled by the hidden size over "
                    f"the heads, which must stay {ratios[0]:g} in every source and in the result"
                )
        for index, source in enumerate([] if messages else arrays[1:], 1):
            for missing in sorted(set(arrays[0]) ^ set(source)):
                has = "lacks" if missing in arrays[0] else "has, and the first lacks,"
                messages.append(f"source {index} {has} weight `{missing}`")
        return messages


def _stem(name):
    return name.partition("#")[0]
