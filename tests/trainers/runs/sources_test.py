"""Sources of a stage: what has to be there before it is trained."""

import pytest

from trainers.errors import UserError
from trainers.plans.graph import Stage
from trainers.runs import sources
from trainers.runs.state import RunState

FUSED = Stage("b", "M", "self_fusion", ("a",), copies=2, source_steps={"a": 2})


def test_a_finished_source_without_the_checkpoint_that_is_fused(tmp_path):
    state = RunState(tmp_path)
    sources.check_kept(FUSED, state)  # it is yet to be trained
    state.write_record("a", {"steps": 4})
    with pytest.raises(UserError, match="step 2 of 'a', which 'b' is fused from"):
        sources.check_kept(FUSED, state)
    sources.checkpoint_folder(FUSED, "a", state).mkdir(parents=True)
    sources.check_kept(FUSED, state)


def test_a_finished_fusion_needs_its_sources_no_more(tmp_path):
    state = RunState(tmp_path)
    for name in ("a", "b"):
        state.write_record(name, {"steps": 4})
    sources.check_kept(FUSED, state)
