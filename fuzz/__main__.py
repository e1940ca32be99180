"""`python -m fuzz`: see docs/fuzzing.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fuzz.kinds import KINDS
from fuzz.run import corpus, mutations, replay, run


def main() -> int:
    """Run; return 1 if a fault was found."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Try mutated models, data and options. docs/fuzzing.md explains."
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same inputs")
    parser.add_argument("--minutes", type=float, help="how long to run; 5 unless --count is given")
    parser.add_argument("--count", type=int, help="how many inputs to try")
    parser.add_argument("--start", type=int, default=0, help="number of the first input, to go on where a run ended")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"separated by commas; default: {','.join(KINDS)}")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"), help="folder for failing inputs")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="case.json of a failing input")
    parser.add_argument("--corpus", action="store_true", help="try the inputs in tests/fuzz/corpus instead")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    if options.replay is not None:
        findings = replay(options.replay).findings
        print(*(" | ".join(finding) for finding in findings), sep="\n")
        return bool(findings)
    if options.corpus:
        judged = corpus()
        faulty = {name: findings for name, findings in judged if findings}
        print(json.dumps({"rows": len(judged), "findings": faulty}, indent=2))
        return bool(faulty)
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    minutes = 5.0 if options.minutes is None and options.count is None else options.minutes
    tasks = mutations(options.seed, kinds, options.start)
    summary = run(tasks, count=options.count, minutes=minutes, workers=options.workers, out=options.out)
    done = options.start + sum(summary.inputs.values())
    print(f"seed {options.seed}; to go on where this run ended: --start {done}", file=sys.stderr)
    print(json.dumps(summary.to_dict(), indent=2) if options.json else "\n".join(summary.lines()))
    return bool(summary.findings)


if __name__ == "__main__":
    sys.exit(main())
