"""Families of stock models, as tables."""

# Each registers its tables.
from keras_fusion.families import bart, bert, gemma, gpt2, llama, opt, t5, vit  # noqa: F401
from keras_fusion.families.grouped import load_preset
from keras_fusion.families.keras_hub import repeat_key_heads
from keras_fusion.families.table import Family, Names, families, family_of, register

__all__ = [
    "families",
    "Family",
    "family_of",
    "load_preset",
    "Names",
    "register",
    "repeat_key_heads",
]
