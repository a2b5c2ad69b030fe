"""A T5 goes round: transformers → our checkpoint → KerasHub → transformers, with equal logits."""

import keras
import numpy as np
import pytest

from keras_fusion import interop
from keras_fusion.interop import t5, writing
from keras_fusion.models import T5
from tests.interop import models
from tests.interop.fusing_test import distance, outputs

pytest.importorskip("keras_hub", reason="keras-hub is not installed")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("t5", {}),
        ("t5", {"dtype": "float16"}),
        ("t5_v1_1", {}),
        ("t5_v1_1", {"dtype": "bfloat16"}),
        # 1.0 with a head of its own.
        ("t5_v1_1", {"feed_forward_proj": "relu"}),
    ],
)
@pytest.mark.filterwarnings("ignore:Layer '.*_attention'.*does not support masking")
def test_round_trip(tmp_path, name, fields):
    source = models.save(name, tmp_path / "a", **fields)
    expected = outputs(source)
    config, weights = t5.from_transformers(interop.read_folder(source))
    ours = T5.from_weights(config, weights, seed=0)
    generator = models.torch.Generator().manual_seed(5)
    tokens = models.torch.randint(3, 23, (2, 7), generator=generator).numpy()
    logits = ours({"encoder_token_ids": tokens, "decoder_token_ids": tokens[:, :5]})
    assert distance(keras.ops.convert_to_numpy(logits), expected) < 1e-5

    backbone = t5.to_keras_hub(config, weights)
    back_config, back = t5.from_keras_hub(backbone)
    assert back_config == config
    content, arrays = t5.to_transformers(back_config, back)
    with writing.new_folder(tmp_path / "b") as folder:
        writing.write_model(folder, content, arrays)
    result = outputs(tmp_path / "b")
    np.testing.assert_array_equal(result, expected)
    # What was fused there is a T5 here.
    interop.plan_fusion([tmp_path / "b"] * 2).write(tmp_path / "wide")
    config, weights = t5.from_transformers(interop.read_folder(tmp_path / "wide"))
    assert config.hidden_dim == 24
    wide = T5.from_weights(config, weights, seed=0)
    logits = wide({"encoder_token_ids": tokens, "decoder_token_ids": tokens[:, :5]})
    assert distance(keras.ops.convert_to_numpy(logits), expected) < 1e-5
