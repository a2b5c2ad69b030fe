"""The pins of .venv-interop against what its packages need."""

from tests.requirements import needed_by, pins, required


def test_every_pin_is_required_and_every_requirement_is_pinned():
    needed = needed_by([*map(str, required("interop", "torch").values())])
    assert needed - set(pins()) == set(pins("constraints-interop.txt"))
