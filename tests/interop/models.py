"""Tiny models of transformers with random weights, one or more for each family.

No two axes have equal sizes, so that a weight that is put down the wrong way does not fit; norms
and biases are random too, so that a lost factor shows.
"""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
# These models are too small for more.
torch.set_num_threads(1)

_TEXT = {"vocab_size": 23, "hidden_size": 12, "num_hidden_layers": 2, "intermediate_size": 20}
_ENCODER = _TEXT | {"num_attention_heads": 3, "max_position_embeddings": 11, "type_vocab_size": 2}
_DECODER = _TEXT | {"num_attention_heads": 6, "num_key_value_heads": 2}
_DECODER |= {"max_position_embeddings": 40}
_DISTIL = {"vocab_size": 23, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20}
_DISTIL |= {"max_position_embeddings": 11}
_SEQUENCE = {
    "vocab_size": 23,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_GPT2 = {"vocab_size": 23, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 11}
_GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
_T5 = {"vocab_size": 23, "d_model": 12, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_heads": 3}
_T5 |= {"decoder_start_token_id": 0}
_OPT = {"vocab_size": 23, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
_OPT |= {"ffn_dim": 20, "max_position_embeddings": 11, "word_embed_proj_dim": 12}
_LLAMA_3_ROPE = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
_LLAMA_3_ROPE |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA_3_ROPE |= {"original_max_position_embeddings": 8}
_GEMMA = _DECODER | {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 9}
_VIT = {"image_size": 8, "patch_size": 4, "hidden_size": 12, "num_hidden_layers": 2}
_VIT |= {"num_attention_heads": 3, "intermediate_size": 20, "num_labels": 5}
_WHISPER = _SEQUENCE | {"num_mel_bins": 9, "max_source_positions": 4, "max_target_positions": 11}
_WHISPER |= {"begin_suppress_tokens": None}

# Name of the case: class of the model, class of its configuration, fields.
CASES = {
    "t5": ("T5ForConditionalGeneration", "T5Config", _T5),
    "t5_v1_1": (
        "T5ForConditionalGeneration",
        "T5Config",
        _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "t5_encoder": ("T5EncoderModel", "T5Config", _T5),
    "bert_masked": ("BertForMaskedLM", "BertConfig", _ENCODER),
    "bert_classifier": ("BertForSequenceClassification", "BertConfig", _ENCODER),
    "bert_bare": ("BertModel", "BertConfig", _ENCODER),
    "roberta_masked": ("RobertaForMaskedLM", "RobertaConfig", _ENCODER),
    "roberta_classifier": ("RobertaForSequenceClassification", "RobertaConfig", _ENCODER),
    "distilbert_masked": ("DistilBertForMaskedLM", "DistilBertConfig", _DISTIL),
    "distilbert_classifier": ("DistilBertForSequenceClassification", "DistilBertConfig", _DISTIL),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _GPT2),
    "gpt2_bare": ("GPT2Model", "GPT2Config", _GPT2),
    "gpt2_classifier": ("GPT2ForSequenceClassification", "GPT2Config", _GPT2 | {"pad_token_id": 1}),
    "opt": ("OPTForCausalLM", "OPTConfig", _OPT),
    "opt_projected": (
        "OPTForCausalLM",
        "OPTConfig",
        _OPT | {"word_embed_proj_dim": 8, "do_layer_norm_before": False},
    ),
    "bart": ("BartForConditionalGeneration", "BartConfig", _SEQUENCE | {"scale_embedding": True}),
    "bart_unscaled": ("BartForConditionalGeneration", "BartConfig", _SEQUENCE),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _DECODER | {"attention_bias": True}),
    "llama_tied": ("LlamaForCausalLM", "LlamaConfig", _DECODER | {"tie_word_embeddings": True}),
    "llama_head_dim": ("LlamaForCausalLM", "LlamaConfig", _DECODER | {"head_dim": 8}),
    "llama_3": ("LlamaForCausalLM", "LlamaConfig", _DECODER | {"rope_parameters": _LLAMA_3_ROPE}),
    "mistral": ("MistralForCausalLM", "MistralConfig", _DECODER | {"sliding_window": 4}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _DECODER | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _DECODER | {"head_dim": 8}),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", _DECODER | {"head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", _GEMMA),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", _GEMMA),
    "vit": ("ViTForImageClassification", "ViTConfig", _VIT),
    "vit_bare": ("ViTModel", "ViTConfig", _VIT),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", _WHISPER),
}

# Cases of each family, by its title in docs/models.md.
FAMILIES = {
    "T5": ("t5", "t5_v1_1", "t5_encoder"),
    "BERT": ("bert_masked", "bert_classifier", "bert_bare"),
    "RoBERTa": ("roberta_masked", "roberta_classifier"),
    "DistilBERT": ("distilbert_masked", "distilbert_classifier"),
    "GPT-2": ("gpt2", "gpt2_bare", "gpt2_classifier"),
    "OPT": ("opt", "opt_projected"),
    "BART": ("bart", "bart_unscaled"),
    "Llama": ("llama", "llama_tied", "llama_head_dim"),
    "Llama 3": ("llama_3",),
    "Mistral": ("mistral",),
    "Qwen 2": ("qwen2",),
    "Qwen 3": ("qwen3",),
    "Gemma": ("gemma",),
    "Gemma 2": ("gemma2",),
    "Gemma 3": ("gemma3",),
    "ViT": ("vit", "vit_bare"),
    "Whisper": ("whisper",),
}


def save(name, folder, seed=0, dtype="float32", **fields):
    """Writes a model of a case with random weights; returns the folder.

    Args:
        name: One of `CASES`.
        folder: A new folder.
        seed: Seed of the weights.
        dtype: Their type.
        **fields: Further fields of the configuration.
    """
    class_name, config_name, sizes = CASES[name]
    config = getattr(transformers, config_name)(**sizes | fields)
    generator = torch.Generator().manual_seed(seed)
    model = getattr(transformers, class_name)(config)
    for parameter in model.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    for key, parameter in model.named_parameters():
        # Norms near one: Gemma's weights are what is added to it.
        if "norm" in key.lower() and key.endswith("weight") and not name.startswith("gemma"):
            parameter.data += 1
    if name == "t5_v1_1":
        # A T5 in memory is tied whatever it is told; a file can hold a head of its own.
        shape = model.lm_head.weight.shape
        model.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn(shape, generator=generator))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder
