"""Says what a training step would cost on a mesh of devices that are not at hand.

    python -m trainers.mesh_report --model=t5_m --fuse=2 --mesh_shape=batch:4,model:4

compiles the step for that mesh on virtual devices and prints, for one of them: bytes of weights,
slots and temporaries, FLOPs, the bytes that collectives send in a step, and the largest mesh that
divides. No weight is given a value. With `--fuse=2` there is a second column: the model fused from
two of these. docs/scaling.md says how to read the table. It takes seconds at the paper's sizes and
about a minute for an 11-billion-parameter T5 on 256 devices, in a few GB.
"""

import os

from trainers import programs
from trainers.mesh_costs.config import MeshReportConfig


def main(config: MeshReportConfig) -> None:
    """Reports, on JAX and the CPU."""
    # Both are read when Keras is imported.
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    from trainers.mesh_costs.run import report

    report(config)


if __name__ == "__main__":
    programs.run(main, MeshReportConfig)
