"""Families of stock models, as tables."""

# Each registers its tables.
from keras_fusion.families import bart, bert, gemma, gpt2, llama, opt, t5, vit  # noqa: F401
from keras_fusion.families.table import Family, Names, families, family_of, register

__all__ = [
    "families",
    "Family",
    "family_of",
    "Names",
    "register",
]
