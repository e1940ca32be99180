"""Runs ONNX's own backend tests: `python -m fuzz.backend`; see `fuzz.backend_tests`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fuzz.backend_tests import tests
from fuzz.lane import Task
from fuzz.run import run


def main() -> int:
    """Run; return 1 if a fault was found."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz.backend", description="Protect and evaluate each of ONNX's own backend tests."
    )
    parser.add_argument("--sample", type=int, metavar="N", help="only so many variants, evenly spread")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"), help="folder for variants that fail")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    total = 2 * len(tests())
    count = min(options.sample or total, total)
    numbers = [i * total // count for i in range(count)]
    tasks = (Task("backend", 0, number if count == total else number | 1) for number in numbers)
    summary = run(tasks, count=count, minutes=None, workers=options.workers, out=options.out)
    print(json.dumps(summary.to_dict(), indent=2) if options.json else "\n".join(summary.lines()))
    return bool(summary.findings)


if __name__ == "__main__":
    sys.exit(main())
