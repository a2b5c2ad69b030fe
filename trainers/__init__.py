"""Training programs: prepare text, pretrain, fuse, report.

Python imports this package before the modules of any program, so it is what keeps TensorFlow's
lines about the machine from the output: its log level, and for those lines that come before the
level counts, a filter while TensorFlow is imported. Every other line is shown. It also has
TensorFlow take oneDNN's operations on processors, on which it would leave them out by default.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import shutil
import subprocess
import sys

# From 2 on warnings are left out, from 3 on errors. Without a GPU's driver its absence is logged as
# an error; what else goes wrong is raised.
_LEVEL = "2" if os.path.exists("/proc/driver/nvidia") else "3"
_UNWANTED = "^(WARNING: All log messages before absl::InitializeLog|[IW][0-9]{4} )"


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Finds tensorflow where the other finders do, and filters what its import writes."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader and sys.stderr and shutil.which("grep"):
            execute = spec.loader.exec_module
            spec.loader.exec_module = _filtered()(execute)
        return spec


@contextlib.contextmanager
def _filtered():
    """Passes the lines of standard error through a process of its own, which outlives a crash."""
    command = ["grep", "--line-buffered", "-vE", _UNWANTED]
    stderr = os.dup(2)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stderr) as lines:
        os.dup2(lines.stdin.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _LEVEL)
# By default only where a processor has instructions for products of small integers. Attention's
# products, many and small, take half the time with it on others too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if "tensorflow" not in sys.modules:
    sys.meta_path.insert(0, _QuietTensorFlow())
