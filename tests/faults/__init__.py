"""Runs that are killed at points drawn from a seed, and must end as one that never was.

    python -m tests.faults --points=30 --seed=0        (make faults)

zygote.py forks processes that run `trainers.pretrain`; points.py says where they are killed;
compare.py tells what the finished folders differ in; harness.py puts the three together.
"""

# Before TensorFlow, whose start-up lines it filters.
import trainers  # noqa: F401
