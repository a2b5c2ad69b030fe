"""Heat maps of kernels, and of the blocks that a fusion gave them."""
