"""The paper's Tables 5, 6 and 7 and its Figure 3, with the figures of fine-tunings beside them."""
