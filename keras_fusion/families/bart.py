"""BART and Whisper: an encoder and a decoder, a tied head."""

from keras_fusion.families import common
from keras_fusion.families.table import Family, Names, register

BART = register(
    Family(
        "bart",
        keras_hub=Names(
            ("BartBackbone",),
            weights=common.TRANSFORMER,
            sizes=common.KERAS_SIZES,
            # No norm follows the last layer, whose own is read by the head alone.
            readout=("transformer_decoder_layer_{last}/feedforward_layer_norm/*",),
        ),
        transformers=Names(
            ("BartForConditionalGeneration", "BartModel"),
            weights=common.SEQUENCE
            | {
                "**shared.weight": "vocabulary hidden",
                "**embed_tokens.weight": "vocabulary hidden",
                "**layernorm_embedding.*": "norm: hidden",
                "final_logits_bias": "one vocabulary",
                "lm_head.weight": "vocabulary +hidden",
            },
            sizes=common.SEQUENCE_SIZES,
            fixed=common.VOCABULARY,
            required={
                "*": (
                    "**shared.weight|**embed_tokens.weight",
                    *common.weights_and_biases(
                        "**encoder.layernorm_embedding", "**decoder.layernorm_embedding"
                    ),
                    *common.SEQUENCE_TO_SEQUENCE,
                )
            },
            stacks=common.SEQUENCE_STACKS,
            head=("lm_head.weight",),
            readout=("**decoder.layers.{last}.final_layer_norm.*",),
            layers="decoder_layers",
            embedding=("**shared.weight", "**embed_tokens.weight"),
            embedding_flag="scale_embedding",
        ),
    )
)
WHISPER = register(
    Family(
        "whisper",
        keras_hub=Names(
            ("WhisperBackbone",),
            weights=common.TRANSFORMER
            | {
                "encoder_token_embedding_conv_layer_1/kernel": "window mels hidden",
                "encoder_token_embedding_conv_layer_2/kernel": "window +hidden hidden'",
                "encoder_token_embedding_conv_layer_*/bias": "hidden",
            },
            sizes=common.KERAS_SIZES,
            readout=("decoder_layer_norm/*",),
        ),
        transformers=Names(
            ("WhisperForConditionalGeneration", "WhisperModel"),
            weights=common.SEQUENCE
            | {
                "**conv1.weight": "hidden mels window",
                "**conv2.weight": "hidden' +hidden window",
                "**conv*.bias": "hidden",
                "**embed_tokens.weight": "vocabulary hidden",
                "proj_out.weight": "vocabulary +hidden",
            },
            sizes=common.SEQUENCE_SIZES,
            fixed=common.VOCABULARY | {"mels": "num_mel_bins"},
            required={
                "*": (
                    "**decoder.embed_tokens.weight",
                    *common.weights_and_biases(
                        "**conv1", "**conv2", "**encoder.layer_norm", "**decoder.layer_norm"
                    ),
                    *common.SEQUENCE_TO_SEQUENCE,
                )
            },
            stacks=common.SEQUENCE_STACKS,
            head=("proj_out.weight",),
            readout=("**decoder.layer_norm.*",),
            layers="decoder_layers",
            # Its `scale_embedding` scales nothing: the decoder reads the embedding as it is.
        ),
    )
)
