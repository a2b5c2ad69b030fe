"""Commands on several hosts, each of them a process of this machine."""

import json
import os
import re
from collections.abc import Mapping

from tests.trainers.engines.equality_support import free_ports

_XLA = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
_ADDRESS = re.compile(rb"127\.0\.0\.1:\d+")


def compiled_in(folder: str | os.PathLike) -> dict[str, str]:
    """Variables of a zygote on JAX whose processes leave there what they compile, for the next."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def places(
    backend: str, count: int, devices: int = 1
) -> list[tuple[tuple[str, ...], Mapping[str, str]]]:
    """Returns flags and environment of each of some hosts, which find each other by them."""
    if backend == "jax":
        # Compiling takes most of the time.
        variables = {"XLA_FLAGS": f"{_XLA} --xla_force_host_platform_device_count={devices}"}
        if count == 1:
            return [((), variables)]
        several = (f"--coordinator=127.0.0.1:{free_ports(1)[0]}", f"--num_processes={count}")
        return [((*several, f"--process_id={host}"), variables) for host in range(count)]
    if count == 1:
        return [((), {})]
    workers = [f"127.0.0.1:{port}" for port in free_ports(count)]
    tasks = [{"type": "worker", "index": host} for host in range(count)]
    configs = [{"cluster": {"worker": workers}, "task": task} for task in tasks]
    return [((), {"TF_CONFIG": json.dumps(config)}) for config in configs]


def without_address(content: bytes) -> bytes:
    """Returns what a run says of its command, without the ports, which others had before."""
    return _ADDRESS.sub(b"HOST:PORT", content)
