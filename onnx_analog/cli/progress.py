"""Shows on stderr what is being done, and how long it still takes.

On a terminal, that is one line that changes; elsewhere, as in a pipe or a CI, a plain line at most every ten seconds.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

import click

from onnx_analog.cli.logs import is_quiet
from onnx_analog.cli.patience import held_back
from onnx_analog.cli.printing import console
from onnx_analog.display import Progress, percent_number, silent
from onnx_analog.errors import one_line

BETWEEN = 10.0  # seconds between lines, and before the first
_LEAST_SECONDS, _LEAST_SHARE = 10.0, 0.03  # before time left is estimated
_STEPS = {10: 1, 30: 5, 90: 10}  # seconds that time left is rounded to, below so many seconds
_KEPT = 1.0  # seconds between the shares that are kept


@contextmanager
def watch(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much is done; the yielded function takes what is done and the total."""
    if is_quiet():
        yield lambda _done, _total: None
        return
    if not sys.stderr.isatty():
        line, pace = _Line(), Pace()
        yield lambda done, total: line.show(
            f"{what}: {done:,} of {total:,}{_left(pace.left(done / total if total else None))}"
        )
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with held_back(), Bar(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how many of a known number of steps are done; the yielded function counts one step."""
    done = count(1)
    with watch(what) as update:
        update(0, total)
        yield lambda: update(next(done), total)


@contextmanager
def status(what: str) -> Iterator[Progress]:
    """Show what is being done, and for how long; the yielded function takes that, and what `Progress` takes.

    Where the seconds left are not told, they follow from the pace.
    """
    if is_quiet():
        yield silent
        return
    pace = Pace()

    def text_of(text: str, fraction: float | None, left: float | None) -> str:
        share = "" if fraction is None else f", {percent_number(fraction, 0)} % done"
        return f"{what}: {text}{share}{_left(pace.left(fraction) if left is None else pace.settled(left))}"

    if not sys.stderr.isatty():
        line = _Line()
        yield lambda text, fraction=None, left=None: line.show(text_of(text, fraction, left))
        return
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with held_back(), Bar(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda text, fraction=None, left=None: bar.update(task, description=text_of(text, fraction, left))


class _Line:
    """Prints the latest line on stderr, but not more often than every `BETWEEN` seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, text: str) -> None:
        """Print a line if it is time for one."""
        if time.monotonic() - self._last >= BETWEEN:
            self._last = time.monotonic()
            with suppress(OSError):  # who reads it may have left
                click.echo(one_line(text), file=sys.stderr)


class Pace:
    """Estimates the time left from the share of the work that is done.

    It takes the pace of the second half of the time so far: what a file has kept is done at once at the beginning.
    """

    def __init__(self) -> None:
        self._start, self._times, self._shares = time.monotonic(), [0.0], [0.0]

    def settled(self, left: float) -> float | None:
        """Return the seconds left that somebody else estimates; None in the first seconds, when that is a guess."""
        return left if time.monotonic() - self._start > _LEAST_SECONDS else None

    def left(self, share: float | None) -> float | None:
        """Return the seconds left if a share from 0 to 1 is done; None if too little is done to tell."""
        if share is None:
            return None
        now = time.monotonic() - self._start
        if now - self._times[-1] >= _KEPT:
            self._times.append(now)
            self._shares.append(share)
        then = bisect_right(self._times, now / 2) - 1
        done, seconds = share - self._shares[then], now - self._times[then]
        if now <= _LEAST_SECONDS or share <= _LEAST_SHARE or done <= 0:
            return None
        return max(1 - share, 0.0) * seconds / done


def _left(seconds: float | None) -> str:
    """Return time left in words, to one or two digits."""
    if seconds is None:
        return ""
    if seconds < 90:
        step = next(step for most, step in _STEPS.items() if seconds < most)
        return f", about {max(step * round(seconds / step), 1)} s left"
    return f", about {seconds / 60:.0f} min left" if seconds < 5400 else f", about {seconds / 3600:.1f} h left"
