"""T5, v1.1 and v1.0, made of fusable layers; `T5.fuse` is Deep Fusion (section 3.2)."""

import dataclasses
import functools

import keras
from keras import ops

from keras_fusion.layers.checks import differing_fields
from keras_fusion.layers.dense import FusableDense, FusableEmbedding
from keras_fusion.layers.fusable import Fusable
from keras_fusion.layers.values import born_as, deferred, misfits
from keras_fusion.layers.wide_product import serves, wide_product
from keras_fusion.measures import fusion_gap
from keras_fusion.models.config import GROWING, T5Config
from keras_fusion.models.generation import generate
from keras_fusion.models.t5_layers import SeedSequence, T5Stack, fan_in, normal
from keras_fusion.options import copies_of, mean_weights

_TOKEN_INPUTS = ("token_ids", "padding_mask")


@keras.saving.register_keras_serializable(package="keras_fusion")
class T5(Fusable, keras.Model):
    """A T5 encoder-decoder that can be fused with others.

    Args:
        config: A `T5Config`.
        seed: Seed of the initialisers and dropouts; None draws one.
        build: Whether to create the weights now.

    Call arguments:
        inputs: Dictionary of integer tensors (batch, length): `encoder_token_ids`,
            `decoder_token_ids`, and optionally `encoder_padding_mask` and `decoder_padding_mask`,
            1 where there is a token. Without a mask every position counts. With
            `encoder_segment_ids` and `decoder_segment_ids` a row holds several examples: 1, 2, …
            say which of them a token belongs to, 0 is padding, and tokens attend to those of
            their own example only.
        training: Whether dropout acts.

    Returns:
        Float32 logits (batch, target length, vocabulary_size).

    Raises:
        ValueError: Segment ids of one side only.

    Examples:
        >>> a = T5(T5Config.from_size("tiny_s"), seed=0)
        >>> b = T5(T5Config.from_size("tiny_s"), seed=1)
        >>> big = a.fuse(b, norm="property")   # logits: the mean of a's and b's
    """

    def __init__(self, config, seed=None, build=True, **kwargs):
        super().__init__(blocks=config.blocks, **kwargs)
        self.fusion_gap = None
        self.config = config
        self.seed = seed
        seeds = SeedSequence(seed)
        policy = self.dtype_policy
        self.token_embedding = FusableEmbedding(
            config.vocabulary_size,
            config.hidden_dim,
            embeddings_initializer=normal(1.0, seeds),
            axes=("vocab", "hidden"),
            dtype=policy,
            name="token_embedding",
        )
        self.encoder = T5Stack(config, seeds, is_decoder=False, dtype=policy, name="encoder")
        self.decoder = T5Stack(config, seeds, is_decoder=True, dtype=policy, name="decoder")
        self.head = None
        if not config.tie_embedding_weights:
            self.head = FusableDense(
                config.vocabulary_size,
                use_bias=False,
                kernel_initializer=fan_in(seeds),
                axes=("hidden", "vocab"),
                dtype=_wide(policy),
                name="head",
            )
        if build:
            self.build()

    @classmethod
    def from_weights(cls, config, weights, seed=None, **kwargs):
        """Returns a T5 whose weights are given arrays, in memory or in a file.

        They are made from the arrays, none is initialised first and then overwritten. Inside a
        `keras.StatelessScope` nothing is allocated: each variable keeps an `ArrayInitializer`,
        whose `array` can be read slice by slice.

        Args:
            config: A `T5Config`.
            weights: `{path: array-like}` of every weight, as in a checkpoint or from
                `kf.models.fused_weights`.
            seed: Seed of the dropouts; None draws one.
            **kwargs: Those of the constructor.

        Returns:
            A built T5.

        Raises:
            ValueError: Naming every weight that is missing, unknown, or of another shape, before
                anything is allocated.

        Examples:
            >>> config, weights = kf.models.fused_weights([config_a, config_b], [file_a, file_b])
            >>> big = T5.from_weights(config, weights)
        """
        messages = misfits(shared_skeleton(config), weights)
        if messages:
            raise ValueError(
                "a T5 of this configuration has other weights: "
                f"{len(messages)} mismatches: {'; '.join(messages)}"
            )
        model = cls(config, seed=seed, build=False, **kwargs)
        with born_as(model, weights):
            model.build()
        return model

    @classmethod
    def skeleton(cls, config, dtype=None):
        """Returns a built T5 that holds no values: it knows its weights' names, shapes and axes."""
        with deferred():
            return cls(config, seed=0, name="skeleton", dtype=dtype)

    def build(self, input_shape=None):
        """Creates the weights; their shapes follow from the configuration alone."""
        del input_shape
        self.token_embedding.build()
        self.encoder.build(None)
        self.decoder.build(None)
        if self.head is not None:
            self.head.build((None, None, self.config.hidden_dim))
        self.built = True

    def call(self, inputs, training=None):
        encoded_mask = inputs.get("encoder_padding_mask")
        encoded_segments, segments = _segment_ids(inputs)
        encoded = self.encode(
            inputs["encoder_token_ids"], encoded_mask, training, segment_ids=encoded_segments
        )
        decoded = self.decoder(
            self.token_embedding(inputs["decoder_token_ids"]),
            padding_mask=inputs.get("decoder_padding_mask"),
            encoded=encoded,
            encoded_mask=encoded_mask,
            segment_ids=segments,
            encoded_segment_ids=encoded_segments,
            training=training,
        )
        return self.logits(decoded)

    def encode(self, token_ids, padding_mask=None, training=None, segment_ids=None):
        """Encodes token ids (batch, length) to (batch, length, hidden_dim)."""
        return self.encoder(
            self.token_embedding(token_ids),
            padding_mask=padding_mask,
            segment_ids=segment_ids,
            training=training,
        )

    def logits(self, decoded):
        """Logits from the decoder's output (batch, length, hidden_dim), at least in float32."""
        table, scale = self.token_embedding.embeddings, self.config.hidden_dim**-0.5
        if serves(decoded) and self.head is not None:
            return wide_product(decoded, self.head.kernel)
        if serves(decoded):
            return wide_product(decoded, table, transposed=True) * scale
        wide = keras.backend.result_type(decoded.dtype, "float32")
        decoded = ops.cast(decoded, wide)
        if self.head is not None and self.head.compute_dtype == wide:
            return self.head(decoded)
        if self.head is not None:  # Its weights are small floats; the product is not.
            return ops.matmul(decoded, ops.cast(self.head.kernel, wide))
        return ops.matmul(decoded * scale, ops.transpose(ops.cast(table, wide)))

    def fuse(self, *others, check_on=None, **options):
        """Fuses this network with others into one that computes the mean of their logits.

        With `norm="property"` the fused logits equal the mean of the sources' logits. With
        `"rule"` they do so only where the sources are equal; `check_on` says by how much the loss
        moves. A source counts once, also where it is itself fused: to weigh networks alike, fuse
        them in one call.

        Args:
            others: One or more T5s of the same depth, vocabulary and kind; widths may differ.
            **options: `norm`, `noise`, `noise_kind`, `seed` (of the noise, and of the fused
                network's dropout), `weights`, `fill` and `asymmetry`, as for `kf.fuse`; and
                `grow`, names among "hidden", "heads" and "mlp", by default all of them.
            check_on: Optional batch with `targets`; the fused network's `fusion_gap` then holds
                the `kf.FusionGap` that the fusion caused on it.

        Returns:
            A built T5.

        Raises:
            FusionError: Naming every mismatch at once, before anything is allocated.

        Examples:
            >>> big = a.fuse(b, c, norm="rule", check_on=batch)
            >>> print(big.fusion_gap)
            loss 3.1416 as the mean of 3 sources, 3.2000 fused (+0.0584, +1.86 %)
        """
        fused = super().fuse(*others, **options)
        if check_on is not None:
            fused.fusion_gap = fusion_gap(fused, [self, *others], check_on)
        return fused

    def self_fuse(self, n=2, **options):
        """Fuses this network with itself n times (section 3.1): the loss stays what it is.

        Args:
            n: Number of copies, from 2 to 1,000.
            **options: Those of `fuse`.

        Raises:
            FusionError: As `fuse`, and for another number of copies.

        Examples:
            >>> big = small.self_fuse(2, noise=0.1, seed=0)
        """
        _, *others = copies_of(self, n)
        return self.fuse(*others, **options)

    def generate(self, token_ids, padding_mask=None, max_length=64, **options):
        """Generates token ids; see `keras_fusion.models.generation.generate`."""
        return generate(self, token_ids, padding_mask, max_length=max_length, **options)

    def export(self, filepath, *args, input_signature=None, **kwargs):
        """Exports the model as `keras.Model.export` does.

        Args:
            filepath: Where to.
            input_signature: Default: the four inputs, of any batch size and lengths.
            *args, **kwargs: Those of `keras.Model.export`.
        """
        names = [f"{side}_{kind}" for side in ("encoder", "decoder") for kind in _TOKEN_INPUTS]
        if input_signature is None:
            spec = keras.InputSpec(shape=(None, None), dtype="int32")
            input_signature = [dict.fromkeys(names, spec)]
        # Keras exports only what was called once.
        self(dict.fromkeys(names, ops.ones((1, 1), "int32")))
        return super().export(filepath, *args, input_signature=input_signature, **kwargs)

    def default_grow(self):
        return frozenset(GROWING)

    def widened_config(self, sources, options):
        others = [source.config for source in sources[1:]]
        fused = self.config.fused(others, options.norm, options.grow)
        return self.get_config() | {
            "config": fused.to_dict(),
            "build": False,
            "seed": options.noise.seed,
        }

    def config_mismatches(self, sources, options):
        grown = [field for axis, field in GROWING.items() if axis in options.grow]
        grown += ["norm_groups"] if "hidden" in options.grow else []
        configs = [
            source.config.to_dict() | {"dtype": source.dtype_policy.name} for source in sources
        ]
        return differing_fields(configs, (*grown, "blocks", "dropout"))

    def weight_factors(self, sources, options=None):
        """Moves AVG into the decoder's final norm where the head is the embedding.

        The tied table is both input and output, so it cannot be divided by n. The final norm's
        scale feeds nothing but the head; scaling source i's part by w_i √(D / d_i), with w_i its
        weight in the mean (1/n), D the fused and d_i the source's hidden_dim, gives the mean of
        the sources' logits under v1.0's own factor D^-0.5, for any widths, without a change to the
        architecture.
        """
        grows = options is None or "hidden" in options.grow
        if not self.config.tie_embedding_weights or not grows:
            return {}
        widths = [source.config.hidden_dim for source in sources]
        weights = mean_weights(options and options.weights, len(sources))
        factors = [
            weight * (sum(widths) / width) ** 0.5
            for weight, width in zip(weights, widths, strict=True)
        ]
        return {"decoder/final_norm/scale": factors}

    def build_fused(self, sources, options):
        del sources, options
        self.build()

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "config": self.config.to_dict(),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        return cls(T5Config.from_dict(config.pop("config")), **config)


def _segment_ids(inputs):
    """Returns the segment ids of both sides' tokens; None and None where there are none."""
    segment_ids = tuple(inputs.get(f"{side}_segment_ids") for side in ("encoder", "decoder"))
    if sum(ids is None for ids in segment_ids) == 1:
        raise ValueError(
            "a T5 takes encoder_segment_ids and decoder_segment_ids together: the one's examples "
            f"are the other's. Received: inputs={sorted(inputs)}"
        )
    return segment_ids


def _wide(policy):
    """Returns the head's policy, which computes in float32 where the network's does in less."""
    wide = keras.backend.result_type(policy.compute_dtype, "float32")
    return keras.dtype_policies.DTypePolicy(wide) if wide == policy.variable_dtype else policy


@functools.lru_cache(maxsize=16)
def shared_skeleton(config):
    """Returns `T5.skeleton`, made once for all who only read it; making it takes longer."""
    return T5.skeleton(config)


@functools.lru_cache
def parameter_count(config):
    """Returns the number of weights of a T5 of this configuration, without creating them.

    Examples:
        >>> parameter_count(T5Config.from_size("t5_l"))
        1138316800
    """
    # All blocks of a stack are alike, so two depths suffice: a file may claim any number of them.
    one_layer, two_layers = (
        shared_skeleton(dataclasses.replace(config, num_layers=depth)).count_params()
        for depth in (1, 2)
    )
    return one_layer + (config.num_layers - 1) * (two_layers - one_layer)
