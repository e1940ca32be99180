"""The kinds of input, each with what makes it and what judges it: number i of a kind, of a seed, is always the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from fuzz import backend_tests, corpus, of_models, of_texts
from fuzz.draws import generator, pick
from fuzz.judge import Case, Judge, Main, Verdict

Maker = Callable[[Case, random.Random, list[random.Random]], Case]


class Kind(NamedTuple):
    """A kind of mutated input."""

    make: Maker
    judge: Callable[[Judge], None]


KINDS = {
    "plain": Kind(of_models.plain, of_models.judge_plain),
    "protected": Kind(of_models.protected_case, of_models.judge_protected),
    "plan": Kind(of_models.plan, of_models.judge_plan),
    "manifest": Kind(of_texts.manifest, of_texts.judge_manifest),
    "channel": Kind(of_texts.channel, of_texts.judge_channel),
    "npz": Kind(of_texts.npz, of_texts.judge_npz),
    "csv": Kind(of_texts.csv, of_texts.judge_csv),
    "toml": Kind(of_texts.toml, of_texts.judge_toml),
    "run": Kind(of_texts.run, of_texts.judge_run),
}


class Listed(NamedTuple):
    """A kind whose inputs are listed, and not mutated."""

    case: Callable[[int], Case]
    judge: Callable[[Judge], None]


LISTED = {
    "corpus": Listed(corpus.case, corpus.judge_row),
    "backend": Listed(backend_tests.case, backend_tests.judge),
}


def make(kind: str, seed: int, number: int, keep: Collection[int] | None = None) -> Case:
    """Return input `number` of a kind; with `keep`, only those of its mutations."""
    if kind in LISTED:
        return LISTED[kind].case(number)
    rng = generator(seed, kind, number)
    count = pick(rng, (1, 1, 1, 2, 2, 3, 6))
    steps = [generator(seed, kind, number, step) for step in range(count) if keep is None or step in keep]
    return KINDS[kind].make(Case(kind, seed, number, {}, (), ""), rng, steps)


def judge(case: Case, folder: Path, main: Main, stage: Callable[[str], None] = lambda _: None) -> Verdict:
    """Run the commands that take such an input, in an empty folder, and return what is found."""
    judge = Judge(case, folder, main, stage)
    (LISTED[case.kind] if case.kind in LISTED else KINDS[case.kind]).judge(judge)
    return judge.verdict
