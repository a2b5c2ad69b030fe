"""Work folders made by code, with curves that look like those of tiny runs. For tests only."""

import json
import math

FLOPS_PER_STEP = {"S": 1.1e9, "M": 3.9e9}
SECONDS_PER_STEP = {"S": 0.03, "M": 0.08}
PARAMETERS = {"S": 85_312, "M": 301_184}
TOKENS_PER_STEP = 5_440


def point(step, accuracy, size="M", loss_per_token=None):
    """One evaluation; costs are proportional to the steps."""
    loss_per_token = 6.2 - accuracy / 15 if loss_per_token is None else loss_per_token
    return {
        "step": step,
        "tokens": step * TOKENS_PER_STEP,
        "flops": step * FLOPS_PER_STEP[size],
        "device_seconds": step * SECONDS_PER_STEP[size],
        "loss": 928 * loss_per_token,
        "loss_per_token": loss_per_token,
        "accuracy": accuracy,
    }


def learning_curve(steps, size="M", start=0.5, end=46.0, leaves=1500, every=200, wobble=0.15):
    """A plateau at the unigrams' 31 %, then learning; deterministic ripples stand for noise."""
    curve = []
    for step in [*range(0, steps, every), steps]:
        plateau = start + (31.0 - start) * (1 - math.exp(-step / 120)) if start < 31 else start
        learned = (end - max(31.0, start)) * (1 - math.exp(-max(0, step - leaves) / 1200))
        curve.append(point(step, plateau + learned + wobble * math.sin(step * 1.7), size))
    return curve


def record(name, size, curve, init="scratch", sources=(), **changes):
    """The record of a finished stage."""
    last = curve[-1]
    return {
        "name": name,
        "size": size,
        "init": init,
        "sources": list(sources),
        "steps": last["step"],
        "parameters": PARAMETERS[size],
        "flops_method": "3 × (2 FLOPs × multiply-adds of the forward pass), counted from the model",
        "learning_rate": {"warmup_steps": 300, "offset": 0, "scale": 1.0},
        "seed": 0,
        "source_steps": {},
        "repeat": 1,
        "settings": {},
        "text_passes": {"first": 0.5},
        "curve": curve,
        **{
            field: last[field]
            for field in ("tokens", "flops", "device_seconds", "loss", "loss_per_token", "accuracy")
        },
        **changes,
    }


def complete(stage):
    """A stage that is its own first repeat, unless it is said to be another one's."""
    return {"repeat_of": stage["name"], **stage}


def write_record(workdir, stage):
    """Writes a stage's record into its folder."""
    folder = workdir / stage["name"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(complete(stage)))


def write_running(workdir, stage):
    """Writes stage.json and metrics.jsonl, the files of a stage that is not finished."""
    folder = workdir / stage["name"]
    folder.mkdir(parents=True, exist_ok=True)
    reached = ("curve", "tokens", "flops", "device_seconds", "loss", "loss_per_token", "accuracy")
    unreached = {field: value for field, value in complete(stage).items() if field not in reached}
    (folder / "stage.json").write_text(json.dumps({**unreached, "steps": 4000}))
    lines = [{"kind": "train", "step": 100, "loss": 1.0}]
    lines += [{"kind": "eval", **entry} for entry in stage["curve"]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def small(name="small_0", steps=3000):
    """A small model."""
    return record(name, "S", learning_curve(steps, "S", end=42.0, leaves=1600))


def baseline(steps=4800):
    """The large model from scratch."""
    return record("baseline", "M", learning_curve(steps))


def fused(init="self_fusion", sources=("small_0",), steps=4000, end=46.8, start=40.5, **changes):
    """The large model from small ones."""
    curve = learning_curve(steps, start=start, end=end, leaves=0)
    return record(init, "M", curve, init, sources, **changes)


def write_run(workdir, *stages, **settings):
    """A work folder with finished stages and a run.json."""
    workdir.mkdir(parents=True, exist_ok=True)
    settings = {"corpus": "docs", "size": "tiny", **settings}
    (workdir / "run.json").write_text(json.dumps({"settings": settings, "plans": []}))
    for stage in stages:
        write_record(workdir, stage)
    return workdir


def full_run(workdir):
    """All four plans, finished."""
    both = ("small_0", "small_1")
    return write_run(
        workdir,
        small(),
        small("small_1"),
        baseline(),
        fused(),
        fused("fusion_property", both, end=47.2),
        fused("fusion_rule", both, end=45.6, start=33.0),
        tuning="a sweep over the warm-up length (docs/demo.md) chose 300 steps for every arm",
        command="python -m trainers.pretrain --plan=baseline,self_fusion --size=tiny --workdir=W",
    )
