"""The best candidate of each arm of the plan `tune`, in the folder of a run."""

from collections.abc import Mapping

from trainers.files import read_json, write_json
from trainers.plans import tuning
from trainers.runs.state import RunState
from trainers.runs.workdir import TUNING_FILE, Workdir


def winners(state: RunState, points: Mapping[str, Mapping]) -> dict[str, dict]:
    """Returns the best candidate of each arm whose last rung is trained.

    Of each: `warmup_steps`, `learning_rate_scale`, the `stage` that won, and the `loss_per_token`
    and `accuracy` that it had.
    """
    best_of_arm = {}
    for arm in dict.fromkeys(point["arm"] for point in points.values()):
        of_arm = {name: point for name, point in points.items() if point["arm"] == arm}
        last = max(point["rung"] for point in of_arm.values())
        names = [name for name, point in of_arm.items() if point["rung"] == last]
        records = {name: state.record(name) for name in names}
        trained = [name for name in names if records[name] is not None]
        if len(trained) == tuning.survivors(of_arm, last):
            best = min(trained, key=lambda name: records[name]["loss_per_token"])
            reached = {name: records[best][name] for name in ("loss_per_token", "accuracy")}
            best_of_arm[arm] = (
                {name: of_arm[best][name] for name in tuning.FOUND} | {"stage": best} | reached
            )
    return best_of_arm


def write(workdir: Workdir, arms: Mapping[str, Mapping]) -> None:
    """Writes what `winners` returned, for later commands in this folder; other arms stay."""
    before = _read(workdir)
    if before | arms != before:
        write_json(workdir.path / TUNING_FILE, {"arms": before | arms})


def read(workdir: Workdir) -> dict[str, dict]:
    """Returns what sweeps found in a run's folder, as `tuning.settings_of` gives it; {} if none."""
    return tuning.settings_of(_read(workdir))


def _read(workdir: Workdir) -> dict[str, dict]:
    path = workdir.path / TUNING_FILE
    return read_json(path).get("arms", {}) if path.exists() else {}
