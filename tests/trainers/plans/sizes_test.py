"""Sizes: what they are, against the paper's Tables 8 and 9 and T5's settings."""

import pytest

import keras_fusion as kf
from trainers import plans
from trainers.errors import UserError
from trainers.plans import settings, sizes
from trainers.plans.widths import check_widths


@pytest.mark.parametrize("size", sizes.SIZES.values(), ids=lambda size: size.name)
def test_widths_of_every_size_fit_every_plan(size):
    configs = {
        letter: kf.models.T5Config.from_size(name, vocabulary_size=512).to_dict()
        for letter, name in size.models.items()
    }
    every = plans.stages_of(list(plans.PLANS))
    check_widths([stage for stage in every if stage.size in configs], configs)
    if "L" not in configs:
        with pytest.raises(UserError, match="size='L' of stage 'figure2_1'"):
            check_widths(plans.stages_of(["figure2"]), configs)


@pytest.mark.parametrize("name", ["table8", "table9"])
def test_paper_sizes_have_t5s_settings(name):
    size = sizes.get_size(name)
    assert (size.batch_size, size.input_length) == (256, 512)
    assert size.vocabulary_pieces + size.num_sentinels == 32_100
    resolved = settings.resolve(plans.PLANS["baseline"].stages[0], size)
    assert (resolved.steps, resolved.warmup_steps, resolved.dropout) == (1_000_000, 10_000, 0.0)


def test_every_default_is_readable_for_every_stage():
    for size in sizes.SIZES.values():
        for stage in plans.stages_of(list(plans.PLANS)):
            assert settings.resolve(stage, size).steps > 0


def test_tiny_vocabulary_is_512():
    tiny = sizes.get_size("tiny")
    assert tiny.vocabulary_pieces + tiny.num_sentinels == 512


def test_unknown_size_lists_the_known_ones():
    with pytest.raises(UserError, match="tiny, mini, table8, table9. Received: size='huge'"):
        sizes.get_size("huge")
