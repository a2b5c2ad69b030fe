"""Hosts that are threads of this process: they meet at a barrier."""

import threading
from concurrent.futures import ThreadPoolExecutor


class Host:
    """An engine, as far as it is one of several hosts."""

    def __init__(self, host, barrier, texts):
        self.host, self.num_hosts, self.is_chief = host, len(texts), host == 0
        self._barrier, self._texts = barrier, texts

    def gather(self, text):
        self._texts[self.host] = text
        self._barrier.wait(30)
        texts = list(self._texts)
        self._barrier.wait(30)
        return texts

    def agree(self, flag):
        return any(map(bool, self.gather("x" if flag else "")))


def on_hosts(call, count=2):
    """Calls a function with each of some hosts at once; returns results and exceptions."""
    barrier, texts = threading.Barrier(count), [""] * count
    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(call, Host(host, barrier, texts)) for host in range(count)]
    return [job.exception() or job.result() for job in running]
