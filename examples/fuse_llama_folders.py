"""Fuses folders of transformers: two Llamas into a wider one, and one with itself.

The folders hold random weights, made here; any folder of a supported class does. Nothing is
loaded: the wide weights are computed from the files, piece by piece, as they are written. Where
torch and transformers are installed, each result is loaded as its stock class, and its logits are
compared with the mean of its sources'. Takes less than a minute on two cores:

    python -m examples.fuse_llama_folders
"""

import json
import pathlib
import tempfile

import numpy as np

from keras_fusion import interop
from keras_fusion.interop import tensors, verifying

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "head_dim": 16,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "vocab_size": 500,
}


def write_llama(folder, seed):
    """Writes a Llama of random weights; returns the folder."""
    rng = np.random.default_rng(seed)
    hidden, mlp, vocabulary = 64, 160, 500
    shapes = {
        "self_attn.q_proj": (64, hidden),
        "self_attn.k_proj": (32, hidden),
        "self_attn.v_proj": (32, hidden),
        "self_attn.o_proj": (hidden, 64),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes = {
        f"model.layers.{layer}.{name}": shape
        for layer in range(2)
        for name, shape in shapes.items()
    }
    shapes |= {"model.embed_tokens": (vocabulary, hidden), "lm_head": (vocabulary, hidden)}
    shapes |= {"model.norm": (hidden,)}
    arrays = {
        f"{name}.weight": np.float32(0.1) * rng.standard_normal(shape, "float32")
        if len(shape) == 2
        else np.ones(shape, "float32")
        for name, shape in shapes.items()
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors.write(folder / "model.safetensors", arrays, {"format": "pt"})
    return folder


def main():
    """Prints what is fused, and returns the plans by the names of their folders."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        a, b = (write_llama(folder / name, seed) for seed, name in enumerate("ab"))
        plans = {
            # Not exact: a stock Llama normalises the units of both sources together.
            "a_and_b": interop.plan_fusion([a, b], norm="rule"),
            "a_twice": interop.plan_fusion([a, a]),
            "a_with_wider_mlps": interop.plan_fusion([a], grow={"mlp": 2}),
        }
        for name, plan in plans.items():
            obstacle = verifying.obstacle(plan)
            plan.write(folder / name, check=None if obstacle else verifying.verify)
            print(f"== {name}\n{plan.describe()}")
            print((folder / name / "README.md").read_text() if not obstacle else obstacle, "\n")
    return plans


if __name__ == "__main__":
    main()
