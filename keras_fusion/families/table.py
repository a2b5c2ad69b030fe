"""Families of stock models as tables: what their weights are called, and which axes they have.

A family says it once for each library that has it. Nothing else in the project knows a family by
its name.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping

from keras_fusion.errors import FusionError
from keras_fusion.families.notation import parse


@dataclasses.dataclass(frozen=True)
class Names:
    """Names that one library gives the parts of a family.

    Args:
        classes: Names of the library's classes that have them, or classes of your own.
        weights: `{pattern: axes}` of every weight, see `keras_fusion.families.notation`. In a
            pattern `*` stands for one part of a name, without `.` and `/`, and `**` for any
            characters. A name must match one pattern, or patterns that say the same.
        sizes: `{axis: fields}`: fields of the configuration that are added up where the axis
            grows. These are the axes that can grow.
        fixed: `{axis: field}` of axes that never grow and that the configuration gives the size of.
        required: `{pattern of class names: patterns}` of weights that a folder of such a class must
            hold, because transformers would draw them at random; `|` joins alternatives.
        stacks: `{pattern: field}`: what stands in names of a folder before the number of a layer,
            and the field that counts those layers, which must all be there and be alike.
        once: Patterns of the rest of such names, after the number, in one layer of a stack alone.
        free: Patterns of fields that may differ between sources, besides those of `sizes`.
        defaults: `{field: (other field, factor)}` of fields that may be missing or None.
        head: Patterns of an output head of its own, which takes the mean. Without one the
            embedding is the head as well, and `readout` takes the mean.
        readout: Patterns of what is read by the head alone; `{last}` is the last layer's number.
            The first pattern that matches any weight counts.
        layers: Field with the number of layers that `{last}` is taken from.
        embedding: Patterns of the embedding, where the model multiplies it with √hidden: always, or
            by the field `embedding_flag`.
        embedding_flag: Field that says whether it does; a missing one says no.
        logits_over_root: Whether a tied head's logits are multiplied with 1/√hidden, unless the
            field `logits_flag` says no.
        logits_flag: See `logits_over_root`.
        ties: Whether the head of a model of transformers is the embedding where its configuration
            does not say (`tie_word_embeddings`).
        task_sizes: Fields of a KerasHub task's own configuration that grow as `hidden` does.
        head_dim: Field with the size of a head; None where it is `hidden` over the heads.
        head_dim_scales: Field that is False where attention is scaled by `hidden` over the heads
            in place of the size of a head.
        heads_divide_hidden: Whether the library refuses a hidden size that is no multiple of the
            heads, though the size of a head is a field.
        logits_cap: Field with the soft cap of a task's logits; the mean is taken before it.
        extra: `{field: attribute path}` of what the configuration leaves out.
    """

    classes: tuple[str, ...]
    weights: Mapping[str, str]
    sizes: Mapping[str, tuple[str, ...]]
    fixed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    required: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    stacks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    once: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    defaults: Mapping[str, tuple[str, float]] = dataclasses.field(default_factory=dict)
    head: tuple[str, ...] = ()
    readout: tuple[str, ...] = ()
    layers: str = "num_layers"
    embedding: tuple[str, ...] = ()
    embedding_flag: str | None = None
    logits_over_root: bool = False
    logits_flag: str | None = None
    ties: bool = True
    task_sizes: tuple[str, ...] = ()
    head_dim: str | None = None
    head_dim_scales: str | None = None
    heads_divide_hidden: bool = False
    logits_cap: str | None = None
    extra: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def class_names(self):
        """Names of the classes, those of your own included."""
        return [getattr(cls, "__name__", cls) for cls in self.classes]

    def entry(self, name):
        """The `Entry` of a weight.

        Raises:
            FusionError: No pattern matches its name, or several that differ.
        """
        lines = {line for pattern, line in self.weights.items() if matches(name, (pattern,))}
        if len(lines) != 1:
            fault = "is not in the table" if not lines else f"is {sorted(lines)} in the table"
            raise FusionError(f"weight `{name}` of {'/'.join(self.class_names)} {fault}")
        return parse(lines.pop())

    def value(self, config, field):
        """A field of a configuration, by its default where it is missing or None."""
        value = config.get(field)
        if value is None and field in self.defaults:
            other, factor = self.defaults[field]
            value = self.value(config, other)
            return None if value is None else int(value * factor)
        return value

    def heads_size(self, config):
        """Size of an attention head."""
        if self.head_dim is not None and config.get(self.head_dim) is not None:
            return config[self.head_dim]
        hidden, heads = (self.value(config, self.sizes[axis][0]) for axis in ("hidden", "heads"))
        return hidden // heads

    def heads_sizes(self, config):
        """Size of an attention head by each field that counts heads, such as those of a decoder."""
        if self.head_dim is not None:
            return (self.heads_size(config),)
        hidden = self.value(config, self.sizes["hidden"][0])
        return tuple(hidden // self.value(config, field) for field in self.sizes["heads"])

    def readouts(self, names, config):
        """Names of the weights that are read by a tied head alone; none where the head is not."""
        names = list(names)
        if any(matches(name, self.head) for name in names):
            return set()
        last = (self.value(config, self.layers) or 1) - 1
        for pattern in self.readout:
            patterns = (pattern.replace("{last}", str(last)),)
            chosen = {name for name in names if matches(name, patterns)}
            if chosen:
                return chosen
        return set()


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of stock models.

    Args:
        name: Its name.
        keras_hub: `Names` of KerasHub's classes; None where it has none.
        transformers: `Names` of the classes and files of transformers; None where it has none.
        scales_by_one_plus: Whether norms scale by 1 + their weight.

    Examples:
        >>> kf.families.register(kf.families.Family("mine", keras_hub=names))
    """

    name: str
    keras_hub: Names | None = None
    transformers: Names | None = None
    scales_by_one_plus: bool = False


def matches(name, patterns):
    """Returns whether a name matches one of some patterns."""
    return any(_regex(pattern).fullmatch(name) for pattern in patterns)


def layer_of(name, stack):
    """Number of the layer in a weight's name and what follows it; None where it has none.

    Args:
        name: The name, whose parts are joined by dots.
        stack: Pattern of what stands before the number.

    Examples:
        >>> layer_of("model.layers.3.mlp.up_proj.weight", "**layers")
        (3, 'mlp.up_proj.weight')
    """
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdecimal() and matches(".".join(parts[:place]), (stack,)):
            return int(part), ".".join(parts[place + 1 :])
    return None


@functools.cache
def _regex(pattern):
    parts = re.split(r"(\*\*?)", pattern)
    wild = {"*": "[^./]*", "**": ".*"}
    return re.compile("".join(wild.get(part) or re.escape(part) for part in parts))


_FAMILIES = {}


def register(family):
    """Adds a family, or replaces the one of its name.

    Args:
        family: A `Family`.

    Returns:
        The family.

    Raises:
        ValueError: A line of its tables is not in the notation.

    Examples:
        >>> kf.families.register(Family("mine", transformers=Names(("MineForCausalLM",), …)))
    """
    for names in (family.keras_hub, family.transformers):
        for line in names.weights.values() if names else ():
            parse(line)
    _FAMILIES[family.name] = family
    return family


def families():
    """All families, by name."""
    return dict(_FAMILIES)


def family_of(class_name, library):
    """The `Family` that a class belongs to, and its `Names`; None where none has it.

    Args:
        class_name: Name of a class.
        library: `"keras_hub"` or `"transformers"`.
    """
    for family in _FAMILIES.values():
        names = getattr(family, library)
        if names is not None and class_name in names.classes:
            return family, names
    return None
