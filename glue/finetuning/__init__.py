"""Fine-tuning: a pretrained model, its tasks, the evaluation of its checkpoints."""
