"""Time that importing keras_fusion takes, above importing keras.

    python -m benchmarks.import_time [--rounds=9]

Each round starts one process, which imports keras with its backend, and keras_fusion after it; it
takes about five seconds with TensorFlow. One more goes before, which compiles the modules as an
installation does. The extra time should be below 0.3 s. On a loaded machine read the processor
time. `python -X importtime -c "import keras_fusion"` lists the modules.
"""

import json
import os
import subprocess
import sys

from absl import flags

from benchmarks import _programs
from benchmarks._rounds import line, ratios

PROGRAM = """
import json, sys, time

start = time.perf_counter()
import keras

keras_seconds, modules = time.perf_counter() - start, set(sys.modules)
start, processor_start = time.perf_counter(), time.process_time()
import keras_fusion

seconds = [keras_seconds, time.perf_counter() - start, time.process_time() - processor_start]
added = {name.partition(".")[0] for name in set(sys.modules) - modules}
print(json.dumps([*seconds, sorted(added)]))
"""


def import_once():
    """Imports both in a process of its own.

    Returns:
        The seconds of keras, those that keras_fusion adds, the same in processor time, and the
        top-level packages that it adds.
    """
    command = [sys.executable, "-c", PROGRAM]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    import_once()
    keras, extra, processor, _ = zip(*(import_once() for _ in range(ROUNDS.value)), strict=True)
    print(line("keras", keras, "s", decimals=3))
    print(line("keras_fusion", extra, "s more", decimals=3))
    print(line("its processor", processor, "s", decimals=3))
    print(line("ratio", ratios(extra, keras), decimals=3))


if __name__ == "__main__":
    ROUNDS = flags.DEFINE_integer("rounds", 9, "Processes that import both.", lower_bound=1)
    _programs.run(main)
