"""Examples of the tasks: read as texts, made into padded or packed batches."""

from glue.data.examples import available as available
from glue.data.examples import load_examples as load_examples
