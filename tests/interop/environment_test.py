"""The pins of .venv-interop against what its packages need."""

from tests.requirements import needed_by, pins, required

# Of torch's wheel with CUDA, which pins them itself; its wheel without has none of them.
_OF_CUDA = ("cuda-", "nvidia-", "triton")


def test_every_pin_is_required_and_every_requirement_is_pinned():
    needed = needed_by([*map(str, required("interop", "torch").values())])
    needed = {name for name in needed if not name.startswith(_OF_CUDA)}
    assert needed - set(pins()) == set(pins("constraints-interop.txt"))
