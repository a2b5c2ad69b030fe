"""What `trainers.pretrain` does: stages of plans, one after another or side by side."""
