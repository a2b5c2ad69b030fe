"""Requirements of pyproject.toml, the files of pinned versions, and everything that is needed."""

import functools
import importlib.metadata
import pathlib
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]


@functools.cache
def settings() -> dict:
    """The tables of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def required(*extras: str) -> dict[str, Requirement]:
    """The library's requirements and those of some extras, by canonical name.

    An extra that consists of others stands for theirs.
    """
    project = settings()["project"]
    waiting, requirements = [*project["dependencies"]], {}
    for extra in extras:
        waiting += project["optional-dependencies"][extra]
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name == project["name"]:
            for extra in requirement.extras:
                waiting += project["optional-dependencies"][extra]
        else:
            assert requirements.setdefault(name, requirement) == requirement, (
                f"Two ranges of {name}."
            )
    return requirements


def pins(file: str = "constraints.txt") -> dict[str, tuple[str, str]]:
    """Canonical name of each pinned distribution, with its version and the reason beside it."""
    pinned = {}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        pin, _, reason = line.partition("#")
        if pin.strip():
            name, version = pin.strip().split("==")
            assert canonicalize_name(name) not in pinned, f"{name} is pinned twice."
            pinned[canonicalize_name(name)] = (version, reason.strip())
    return pinned


def needed_by(lines: list[str]) -> set[str]:
    """Canonical names of what requirements install here: themselves and all that they need."""
    waiting = [(line, "") for line in lines]
    seen = set()
    while waiting:
        line, extra = waiting.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ["", *requirement.extras]:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                needs = importlib.metadata.requires(name) or []
                waiting += [(need, wanted) for need in needs]
    return {name for name, _ in seen}
