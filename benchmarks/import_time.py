"""Time that importing keras_fusion takes, above importing keras.

    python -m benchmarks.import_time [--rounds=9]

Each round starts one process, which imports keras with its backend and then keras_fusion: both
times are of the same process, so that a slow start counts for neither. It takes about five seconds
per round with TensorFlow. The extra time should be below 0.3 s. `python -X importtime -c "import
keras_fusion"` lists the modules.
"""

import json
import subprocess
import sys

from absl import app, flags

from benchmarks._rounds import line, ratios

PROGRAM = """
import json, time
start = time.perf_counter()
import keras
middle = time.perf_counter()
import keras_fusion
print(json.dumps([middle - start, time.perf_counter() - middle]))
"""


def import_once():
    """Returns the seconds of importing keras, and of importing keras_fusion after it."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv):
    del argv
    keras, extra = zip(*(import_once() for _ in range(ROUNDS.value)), strict=True)
    print(line("keras", keras, "s", decimals=3))
    print(line("keras_fusion", extra, "s more", decimals=3))
    print(line("ratio", ratios(extra, keras), decimals=3))


if __name__ == "__main__":
    ROUNDS = flags.DEFINE_integer("rounds", 9, "Processes that import both.")
    app.run(main)
