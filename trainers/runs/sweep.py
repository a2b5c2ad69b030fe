"""What the plan `tune` found in the folder of a run: the best candidate of each arm."""

from collections.abc import Mapping

from trainers.files import read_json, write_json
from trainers.plans import tuning
from trainers.runs.workdir import Workdir

TUNING_FILE = "tuning.json"


def winners(workdir: Workdir, points: Mapping[str, Mapping]) -> dict[str, dict]:
    """The best candidate of each arm whose last rung is trained.

    Args:
        workdir: the run's folder.
        points: of the plan.

    Returns:
        Arm to its `warmup_steps` and `learning_rate_scale`, the `stage` that won, and the
        `loss_per_token` and `accuracy` that it had.
    """
    found = {}
    for arm in dict.fromkeys(point["arm"] for point in points.values()):
        of_arm = {name: point for name, point in points.items() if point["arm"] == arm}
        last = max(point["rung"] for point in of_arm.values())
        names = [name for name, point in of_arm.items() if point["rung"] == last]
        records = {name: workdir.record(name) for name in names}
        trained = [name for name in names if records[name] is not None]
        if len(trained) == tuning.survivors(of_arm, last):
            best = min(trained, key=lambda name: records[name]["loss_per_token"])
            reached = {name: records[best][name] for name in ("loss_per_token", "accuracy")}
            found[arm] = (
                {name: of_arm[best][name] for name in tuning.FOUND} | {"stage": best} | reached
            )
    return found


def write(workdir: Workdir, found: Mapping[str, Mapping]) -> None:
    """Writes down what was found, for later commands in this folder; other arms stay."""
    before = _read(workdir)
    if found and before | found != before:
        write_json(workdir.path / TUNING_FILE, {"arms": before | found})


def read(workdir: Workdir) -> dict[str, dict]:
    """What sweeps found in a run's folder, as `settings_of` gives it; empty where none has.

    Raises:
        UserError: the file cannot be read.
    """
    return tuning.settings_of(_read(workdir))


def _read(workdir: Workdir) -> dict[str, dict]:
    path = workdir.path / TUNING_FILE
    return read_json(path).get("arms", {}) if path.exists() else {}
