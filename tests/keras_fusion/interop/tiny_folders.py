"""Tiny folders of transformers, written with numpy alone, and what their models compute."""

import json
import math

import numpy as np
import safetensors.numpy

from keras_fusion import interop
from keras_fusion.families.table import family_of, matches

VOCABULARY, HIDDEN, HEADS, HEAD, MLP, LAYERS = 7, 6, 3, 2, 10, 2

GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": HIDDEN,
    "n_head": HEADS,
    "n_inner": None,
    "n_layer": LAYERS,
    "n_positions": 5,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": VOCABULARY,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 3,
    "intermediate_size": MLP,
    "num_hidden_layers": 1,
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
}
T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "d_model": HIDDEN,
    "d_kv": HEAD,
    "d_ff": MLP,
    "num_heads": HEADS,
    "num_layers": 1,
    "relative_attention_num_buckets": 32,
    "vocab_size": VOCABULARY,
}


def gpt2(seed=0, hidden=HIDDEN, prefix="transformer."):
    """Weights of a GPT-2."""
    rng = np.random.default_rng(seed)
    heads = hidden // HEAD

    def normal(*shape):
        return (0.5 * rng.normal(size=shape)).astype("float32")

    arrays = {"wte.weight": normal(VOCABULARY, hidden), "wpe.weight": normal(5, hidden)}
    for layer in range(LAYERS):
        shapes = {
            "attn.c_attn": (hidden, 3 * heads * HEAD),
            "attn.c_proj": (heads * HEAD, hidden),
            "mlp.c_fc": (hidden, 4 * hidden),
            "mlp.c_proj": (4 * hidden, hidden),
        }
        for name, shape in shapes.items():
            arrays[f"h.{layer}.{name}.weight"] = normal(*shape)
            arrays[f"h.{layer}.{name}.bias"] = normal(shape[1])
        for name in (f"h.{layer}.ln_1", f"h.{layer}.ln_2"):
            arrays |= {f"{name}.weight": 1 + normal(hidden), f"{name}.bias": normal(hidden)}
    arrays |= {"ln_f.weight": 1 + normal(hidden), "ln_f.bias": normal(hidden)}
    return {prefix + name: array for name, array in arrays.items()}


def gpt2_logits(arrays, heads, tokens):
    """Logits of a GPT-2, written down from its definition."""
    w = {name.removeprefix("transformer."): a.astype("float64") for name, a in arrays.items()}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["wte.weight"][tokens] + w["wpe.weight"][: len(tokens)]
    for layer in range(LAYERS):
        parts = np.split(dense(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn"), 3, -1)
        q, k, v = (part.reshape(len(tokens), heads, -1).swapaxes(0, 1) for part in parts)
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        scores = np.where(np.tri(len(tokens), dtype=bool), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        read = (scores / scores.sum(-1, keepdims=True)) @ v
        x = x + dense(read.swapaxes(0, 1).reshape(len(tokens), -1), f"h.{layer}.attn.c_proj")
        y = dense(norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")
        y = 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        x = x + dense(y, f"h.{layer}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


def llama(seed=0, config=LLAMA, dtype="float32"):
    """Weights of a Llama of one layer."""
    rng = np.random.default_rng(seed)
    hidden, mlp, size = (config[f] for f in ("hidden_size", "intermediate_size", "head_dim"))
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    shapes = {
        "self_attn.q_proj": (heads * size, hidden),
        "self_attn.k_proj": (keys * size, hidden),
        "self_attn.v_proj": (keys * size, hidden),
        "self_attn.o_proj": (hidden, heads * size),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes = {f"model.layers.0.{name}.weight": shape for name, shape in shapes.items()}
    shapes |= {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,)}
    shapes |= {"lm_head.weight": (VOCABULARY, hidden)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def t5(seed=0, has_head=False):
    """Weights of a T5 of one layer, not gated."""
    rng = np.random.default_rng(seed)
    shapes = {"shared.weight": (VOCABULARY, HIDDEN)}
    for stack, kinds in (("encoder", ("Self",)), ("decoder", ("Self", "EncDec"))):
        for index, kind in enumerate(kinds):
            layer = f"{stack}.block.0.layer.{index}"
            for name in "qkv":
                shapes[f"{layer}.{kind}Attention.{name}.weight"] = (HEADS * HEAD, HIDDEN)
            shapes[f"{layer}.{kind}Attention.o.weight"] = (HIDDEN, HEADS * HEAD)
            shapes[f"{layer}.layer_norm.weight"] = (HIDDEN,)
        layer = f"{stack}.block.0.layer.{len(kinds)}"
        shapes[f"{layer}.DenseReluDense.wi.weight"] = (MLP, HIDDEN)
        shapes[f"{layer}.DenseReluDense.wo.weight"] = (HIDDEN, MLP)
        shapes[f"{layer}.layer_norm.weight"] = (HIDDEN,)
        name = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shapes[name] = (32, HEADS)
        shapes[f"{stack}.final_layer_norm.weight"] = (HIDDEN,)
    if has_head:
        shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def completed(config, arrays):
    """Arrays, and ones for what else the class in the configuration must have, outside layers."""
    (class_name,) = config["architectures"]
    _, names = family_of(class_name, "transformers")
    fields = {axis: fields[0] for axis, fields in names.sizes.items()} | names.fixed
    sizes = {axis: config[field] for axis, field in fields.items() if field in config}
    sizes["head_dim"] = names.heads_size(config)

    def size(factor):
        return int(factor) if factor.isdigit() else sizes.get(factor.rstrip("'"), 1)

    for classes, patterns in names.required.items():
        for pattern in patterns if matches(class_name, (classes,)) else ():
            if not any(matches(name, pattern.split("|")) for name in arrays):
                name = pattern.split("|")[0].replace("**", "a.").replace("*", "a")
                shape = [math.prod(map(size, dim)) for dim in names.entry(name).dims]
                arrays = arrays | {name: np.ones(shape, "float32")}
    return arrays


def write(folder, config, arrays, shards=1, files=None):
    """Writes a folder of transformers.

    Args:
        folder: A new folder.
        config: Content of config.json.
        arrays: Name to array.
        shards: Number of files of weights.
        files: Further files: name to text.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    if shards == 1:
        safetensors.numpy.save_file(arrays, folder / "model.safetensors", {"format": "pt"})
        return folder
    places = {
        name: f"model-{index % shards + 1:05d}-of-{shards:05d}.safetensors"
        for index, name in enumerate(arrays)
    }
    for file in set(places.values()):
        part = {name: array for name, array in arrays.items() if places[name] == file}
        safetensors.numpy.save_file(part, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read(folder):
    """Configuration and weights of a folder, read with the safetensors package."""
    arrays = {}
    for file in folder.glob("*.safetensors"):
        arrays |= safetensors.numpy.load_file(file)
    return json.loads((folder / "config.json").read_text()), arrays


def fused(tmp_path, sources, name="fused", **options):
    """Configuration and weights of the written fusion."""
    written = {key: options.pop(key) for key in ("max_shard_size", "check") if key in options}
    interop.plan_fusion(sources, **options).write(tmp_path / name, **written)
    return read(tmp_path / name)
