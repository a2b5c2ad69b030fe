"""T5's configuration: named sizes, parameter counts of Tables 8 and 9, errors, fusion."""

import dataclasses
import json

import pytest

from keras_fusion.errors import FusionError
from keras_fusion.models import T5, T5Config, parameter_count
from tests.keras_fusion.models import tiny

TABLES_8_AND_9 = {
    "t5_small": 76_961_152,
    "t5_medium": 242_002_688,
    "t5_s": 95_835_520,
    "t5_m": 317_500_160,
    "t5_l": 1_138_316_800,
}


@pytest.mark.parametrize(("size", "count"), TABLES_8_AND_9.items())
def test_parameter_counts_of_the_tables(size, count):
    assert parameter_count(T5Config.from_size(size)) == count


@pytest.mark.parametrize("version", [tiny.V1_0, tiny.V1_1])
@pytest.mark.one_backend
def test_parameter_count_of_a_built_model(version):
    config = tiny.config(num_layers=1, num_heads=3, **version)
    assert T5(config).count_params() == parameter_count(config)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["t5_small", "t5_s"])
def test_parameter_count_of_a_built_size(size):
    assert T5(T5Config.from_size(size), seed=0).count_params() == TABLES_8_AND_9[size]


def test_a_fused_size_has_the_widths_of_the_next():
    small, medium = T5Config.from_size("t5_s"), T5Config.from_size("t5_m")
    fused = small.fused([small], "rule")
    assert fused == dataclasses.replace(medium, blocks=fused.blocks)
    assert fused.blocks == {"hidden": (512, 512), "heads": (6, 6), "mlp": (1024, 1024)}
    assert fused.norm_groups is None
    assert parameter_count(fused) == TABLES_8_AND_9["t5_m"]


def test_groups_of_a_staged_fusion():
    a, b = tiny.config(), tiny.config(hidden_dim=6, num_heads=1)
    pair = a.fused([b], "property")
    assert pair.norm_groups == (8, 6) and pair.num_heads == 3
    assert pair.fused([a], "property").norm_groups == (8, 6, 8)
    assert pair.fused([a], "property").blocks["hidden"] == (14, 8)
    assert pair.fused([a], "rule").norm_groups is None
    with pytest.raises(FusionError, match="norm='batch'"):
        a.fused([b], "batch")


def test_round_trip_through_json():
    config = tiny.config().fused([tiny.config(hidden_dim=6)], "property")
    again = T5Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)


def test_overrides():
    config = T5Config.from_size("tiny_s", vocabulary_size=640, dropout=0.1)
    assert (config.vocabulary_size, config.dropout, config.hidden_dim) == (640, 0.1, 64)
    assert T5Config.from_size("tiny_m").vocabulary_size == 512


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_dim": 0}, "positive integer. Received: hidden_dim=0"),
        ({"num_layers": 1.5}, "positive integer. Received: num_layers=1.5"),
        ({"num_heads": True}, "positive integer. Received: num_heads=True"),
        ({"vocabulary_size": "9"}, "positive integer. Received: vocabulary_size='9'"),
        ({"dropout": 1.0}, r"\[0, 1\). Received: dropout=1.0"),
        ({"layer_norm_epsilon": 0.0}, "above 0. Received: layer_norm_epsilon=0.0"),
        ({"activation": "tanh"}, "'gelu', 'relu', 'silu'.* Received: activation='tanh'"),
        ({"relative_attention_num_buckets": 3}, "at least 4 buckets.* Received: .*num_buckets=3"),
        ({"relative_attention_max_distance": 16}, "Received: .*max_distance=16"),
        ({"norm_groups": (3, 4)}, r"hidden_dim=8. Received: norm_groups=\(3, 4\)"),
        ({"blocks": {"hidden": (4, 5)}}, "add up.* Received: blocks="),
        ({"blocks": {"vocab": (4, 4)}}, "'hidden', 'heads', 'mlp'.* Received: blocks="),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(**fields)


def test_an_unknown_size_lists_the_known():
    with pytest.raises(ValueError, match="'t5_small'.*'tiny_s'.* Received: size='t5_xl'"):
        T5Config.from_size("t5_xl")


def test_an_unknown_field_lists_the_known():
    with pytest.raises(ValueError, match=r"'num_layers'.* Received: \['depth'\]"):
        T5Config.from_dict({"depth": 3})
