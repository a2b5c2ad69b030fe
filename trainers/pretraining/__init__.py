"""The work of `trainers.pretrain`: stages of plans, one after another or side by side."""
