"""Ratios of two measurements in one run, and the memory that a process takes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

PAIRS = 7

# A process of its own, so that what was there before does not count. Anonymous memory is what a machine must have;
# pages of files that are mapped, as weights are, are given up when memory is short. The kernel's high-water mark counts
# both.
_WATCHED = """
import json, re, sys, threading, time

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

most, ended = [0.0], threading.Event()

def watch():
    while not ended.wait(0.01):
        most[0] = max(most[0], status("RssAnon"))

threading.Thread(target=watch, daemon=True).start()
start = time.perf_counter()
exec(sys.argv[1])
seconds = time.perf_counter() - start
ended.set()
print(json.dumps({"anonymous_mib": most[0], "resident_mib": status("VmHWM"), "seconds": seconds}))
"""


def seconds(action: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def ratio(action: Callable[[], object], bound: Callable[[], object], pairs: int = PAIRS) -> dict[str, float]:
    """Return the median of action over bound, and both medians in milliseconds.

    Measured in turn, so that a machine that slows down slows both.
    """
    action(), bound()  # warm up
    times = [(seconds(action), seconds(bound)) for _ in range(pairs)]
    ours, theirs = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    return {"ratio": statistics.median(a / b for a, b in times), "ms": ours, "bound_ms": theirs}


def memory(code: str, *arguments: str) -> dict[str, float]:
    """Return the most memory that Python takes to run `code`, in MiB, and its seconds; `sys.argv[2:]` are arguments."""
    command = [sys.executable, "-c", _WATCHED, code, *arguments]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def run(*arguments: str) -> Callable[[], Any]:
    """Return an action that runs Python in a new process."""
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
