"""Families of stock models, as tables."""

from keras_fusion.families import bart as bart
from keras_fusion.families import bert as bert
from keras_fusion.families import gemma as gemma
from keras_fusion.families import gpt2 as gpt2
from keras_fusion.families import llama as llama
from keras_fusion.families import opt as opt
from keras_fusion.families import t5 as t5
from keras_fusion.families import vit as vit
from keras_fusion.families.table import Family as Family
from keras_fusion.families.table import Names as Names
from keras_fusion.families.table import families as families
from keras_fusion.families.table import family_of as family_of
from keras_fusion.families.table import register as register
