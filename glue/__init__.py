"""Fine-tuning on GLUE: tasks as T5 reads them, their metrics, and the paper's Tables 5, 6 and 7.

Programs:

    python -m glue.finetune   fine-tunes a checkpoint, evaluates it, records its scores
    python -m glue.report     makes the tables of what was recorded

Public names:

    glue.data.load_examples(task, split, data_dir=None)   (input text, target text) of each example
    glue.metrics.score(task, split, targets, predictions) the scores of predicted texts
    glue.metrics.average(scores)                          the paper's average of eight groups

Importing `trainers` keeps start-up lines of TensorFlow from the output.
"""

import trainers  # noqa: F401
