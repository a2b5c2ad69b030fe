"""Time of a training step with norms in groups, one for each source, over that with plain norms.

    python -m benchmarks.grouped_norm [--size=tiny_m] [--groups=2] [--rounds=15]

Two T5s of one size, one with norms in equal groups (the fusion property), one with plain norms,
train in turn in this one process. The paper's implementation paid 9.6 % for the property (41 h
against 37.4 h, Table 1); ours should pay at most 2 %. `--unequal` measures groups of unequal
widths, which are split and concatenated. Takes about two minutes on two cores.
"""

import dataclasses

from absl import flags

import keras_fusion as kf
from benchmarks import _programs
from benchmarks._rounds import in_turn, line, ratios
from benchmarks.train_step import make_step


def groups_of(hidden_dim, count, unequal):
    """Returns the widths of the groups; unequal ones differ by two units."""
    widths = [hidden_dim // count] * count
    if unequal:
        widths[0], widths[-1] = widths[0] + 2, widths[-1] - 2
    widths[-1] += hidden_dim - sum(widths)
    return tuple(widths)


def compare(config, groups, batch_size, input_length, steps, rounds):
    """Returns the step time with grouped norms over that with plain ones, round by round."""
    plain = make_step(kf.models.T5(config, seed=0), batch_size, input_length)
    grouped_config = dataclasses.replace(config, norm_groups=groups)
    grouped = make_step(kf.models.T5(grouped_config, seed=0), batch_size, input_length)
    return ratios(*in_turn([lambda: grouped(steps), lambda: plain(steps)], rounds))


def main():
    config = kf.models.T5Config.from_size(SIZE.value)
    if GROUPS.value > (most := config.hidden_dim // 4):
        _programs.fail(
            f"Expected --groups of at most {most}. Received: {GROUPS.value}. Take fewer."
        )
    groups = groups_of(config.hidden_dim, GROUPS.value, UNEQUAL.value)
    measured = compare(
        config, groups, BATCH_SIZE.value, INPUT_LENGTH.value, STEPS.value, ROUNDS.value
    )
    print(f"{SIZE.value}, groups {groups}, batch {BATCH_SIZE.value} x {INPUT_LENGTH.value}")
    print(line("grouped / plain norm, step time:", measured, decimals=4))


if __name__ == "__main__":
    SIZE = flags.DEFINE_enum("size", "tiny_m", sorted(kf.models.config.SIZES), "Size of the T5.")
    GROUPS = flags.DEFINE_integer("groups", 2, "Number of groups.", lower_bound=2)
    UNEQUAL = flags.DEFINE_bool("unequal", False, "Give the groups unequal widths.")
    BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Sequences per batch.", lower_bound=1)
    INPUT_LENGTH = flags.DEFINE_integer("input_length", 128, "Tokens of an input.", lower_bound=1)
    STEPS = flags.DEFINE_integer("steps", 20, "Steps per round.", lower_bound=1)
    ROUNDS = flags.DEFINE_integer("rounds", 15, "Rounds, both models in turn.", lower_bound=1)
    _programs.run(main)
