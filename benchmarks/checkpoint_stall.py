"""Time that saving a checkpoint adds to 100 steps of training.

    python -m benchmarks.checkpoint_stall [--size=tiny_m] [--every=100] [--rounds=10]

One run of `trainers.training.loop` on random batches, which saves at every second boundary of
`--every` steps. Windows of that many steps with a save and without one alternate, and each window
with a save is compared with the mean of its two neighbours: a drift of the machine's speed cancels
out. A window contains the whole cost of a save: the copy from the device, the loop's own work, and
the thread that writes beside the steps. It is measured in wall time and, for shared machines, in
processor time of this process, all threads together. The pause of the loop alone is reported too:
the time between two calls of the engine where it saves, less that where it does not. About four
minutes on two cores at the default size.
"""

import itertools
import pathlib
import tempfile
import time

import keras
import numpy as np
from absl import flags

import keras_fusion as kf
from benchmarks import _programs
from trainers import checkpoints
from trainers.data.spans import raw_length, target_length
from trainers.engines.tensorflow import TensorFlowEngine
from trainers.training import loop
from trainers.training.config import StageJob, StepCosts, TrainConfig, Watch

OPTIMIZERS = {"adafactor": kf.optimizers.Adafactor, "adamw": keras.optimizers.AdamW}


class RandomBatches:
    """The same random batch at every step, which costs nothing to make."""

    def __init__(self, vocabulary_size: int, batch_size: int, input_length: int):
        rng = np.random.default_rng(0)
        lengths = {"encoder_token_ids": input_length}
        lengths |= dict.fromkeys(
            ("decoder_token_ids", "targets"), target_length(raw_length(input_length))
        )
        self._batch = {
            name: rng.integers(2, vocabulary_size, (batch_size, length)).astype(np.int32)
            for name, length in lengths.items()
        }

    def batch(self, index: int) -> dict[str, np.ndarray]:
        return self._batch

    def from_step(self, start: int):
        return itertools.repeat(self._batch)


class TimedEngine(TensorFlowEngine):
    """Records wall and processor time at the begin and end of each call of `train`, by step."""

    def __init__(self):
        super().__init__()
        self.step = 0
        self.began: dict[int, np.ndarray] = {}
        self.ended: dict[int, np.ndarray] = {}

    def train(self, batches, num_steps):
        self.began[self.step] = _now()
        sums = super().train(batches, num_steps)
        self.step += num_steps
        self.ended[self.step] = _now()
        return sums


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def train(config, optimizer, batch_size, input_length, every, rounds, folder) -> TimedEngine:
    """Trains `2 * rounds + 2` windows of `every` steps, saving at the end of each odd one."""
    engine = TimedEngine()
    with engine.scope():
        model = kf.models.T5(config, seed=0)
        slots = OPTIMIZERS[optimizer](0.001)
    batches = RandomBatches(config.vocabulary_size, batch_size, input_length)
    steps = (2 * rounds + 2) * every
    job = StageJob(
        engine=engine,
        model=model,
        optimizer=slots,
        batches=batches,
        validation=batches,
        costs=StepCosts(tokens_per_step=1, flops_per_step=1.0),
    )
    periods = TrainConfig(
        steps=steps,
        eval_every=steps,
        eval_batches=1,
        checkpoint_every=2 * every,
        log_every=every,
        steps_per_call=min(20, every),
    )
    loop.train(job, periods, folder, Watch(progress=False))
    return engine


def stalls(engine: TimedEngine, every: int, rounds: int) -> dict[str, np.ndarray]:
    """Returns the time that saves add and the loop's pauses, as shares of a window."""

    def window(step):
        return engine.ended[step + every] - engine.ended[step]

    def pause(step):
        return engine.began[step] - engine.ended[step]

    added, paused = [], []
    for step in range(2 * every, 2 * every * (rounds + 1), 2 * every):
        around = (step - every, step + every)
        without = np.mean([window(other) for other in around], axis=0)
        added.append(window(step) / without - 1)
        paused.append((pause(step) - np.mean([pause(other) for other in around], axis=0)) / without)
    clock, processor = np.transpose(added)
    return {
        "all, in wall time": clock,
        "all, in processor time": processor,
        "pause of the loop": np.array(paused)[:, 0],
    }


def main():
    config = kf.models.T5Config.from_size(SIZE.value)
    with tempfile.TemporaryDirectory() as folder:
        engine = train(
            config,
            OPTIMIZER.value,
            BATCH_SIZE.value,
            INPUT_LENGTH.value,
            EVERY.value,
            ROUNDS.value,
            folder,
        )
        saved = checkpoints.latest(pathlib.Path(folder) / checkpoints.CHECKPOINT_FOLDER)
        size = sum(value.nbytes for value in saved.state().values())
    print(
        f"{SIZE.value}, {OPTIMIZER.value}, batch {BATCH_SIZE.value} x {INPUT_LENGTH.value}, "
        f"{size / 1e6:.1f} MB per checkpoint, one in {EVERY.value} steps"
    )
    for name, values in stalls(engine, EVERY.value, ROUNDS.value).items():
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        print(f"{name:22} median {middle:7.2%}   min {low:7.2%}   max {high:7.2%}")


if __name__ == "__main__":
    SIZE = flags.DEFINE_enum("size", "tiny_m", sorted(kf.models.config.SIZES), "Size of the T5.")
    OPTIMIZER = flags.DEFINE_enum("optimizer", "adafactor", sorted(OPTIMIZERS), "Optimizer.")
    BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Sequences per batch.", lower_bound=1)
    INPUT_LENGTH = flags.DEFINE_integer("input_length", 128, "Tokens of an input.", lower_bound=1)
    EVERY = flags.DEFINE_integer(
        "every", 100, "Steps between a save and the next window.", lower_bound=1
    )
    ROUNDS = flags.DEFINE_integer("rounds", 10, "Saves that are measured.", lower_bound=1)
    _programs.run(main)
