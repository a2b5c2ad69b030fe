"""Ids of the special tokens, as T5 numbers them."""

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
