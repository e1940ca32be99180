"""Processes that are killed at every step, and what the next one makes of what they left."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from onnx_analog.disk import transactions
from onnx_analog.disk.transactions import PREFIX, Transaction
from onnx_analog.disk.writing import write_all, write_text
from onnx_analog.errors import ManifestError, ModelError, OutputError
from onnx_analog.graph import files, manifest_json
from tests.conftest import ROOT

NAMES = ("a.onnx", "a.onnx.data", "there/a.json")

# Forks a writer for each step of its work that the system is asked for, kills it just before that step, lets another
# writer work in the same folders, and prints what is there then.
CRASHES = """
import json, os, shutil, signal, sys
from pathlib import Path
from onnx_analog.disk import transactions
from onnx_analog.errors import OutputError
from onnx_analog.disk.writing import write_all, write_text

STEPS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.scandir", "os.listdir"}
names, old, force, again, without = json.loads(sys.argv[1])
root = Path(sys.argv[2])
if without:
    transactions.recover = lambda folders: None

def work(fresh):
    try:
        if fresh:
            write_all({root / name: write_text("new") for name in names}, force=force)
        else:
            for folder in sorted({(root / name).parent for name in names}):
                write_all({folder / "other": write_text("other")}, force=True)
    except OutputError as error:
        os.write(2, str(error).encode())
        os._exit(1)

def killed(step, fresh):
    child = os.fork()
    if not child:
        steps = 0
        def hook(event, values):
            nonlocal steps
            steps += event in STEPS
            if event in STEPS and steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        work(fresh)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, status
    return os.WIFSIGNALED(status)

def fill():
    shutil.rmtree(root, ignore_errors=True)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    for name in old:
        (root / name).write_text("old")

def state():
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}

found, step = [], 0
while True:
    step += 1
    fill()
    if not killed(step, True):
        break
    second = 1
    while again:
        fill()
        killed(step, True)
        if not killed(second, False):
            break
        work(False)
        found.append(state())
        second += 1
    work(False)
    found.append(state())
print(json.dumps([step, found]))
"""


def crashes(root: Path, old: tuple[str, ...], *, force: bool, again: bool = False, without: bool = False) -> Any:
    line = json.dumps([NAMES, old, force, again, without])
    found = subprocess.run(
        [sys.executable, "-c", CRASHES, line, str(root)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert found.returncode == 0, found.stderr
    steps, states = json.loads(found.stdout)
    assert steps > 30  # of which each is one at which it was killed
    return states


def assert_all_or_none(states: list[dict[str, str]], old: tuple[str, ...]) -> None:
    """Fail unless the files are all the old or all the new ones, and nothing else is there; and both happened."""
    others = {"other": "other", "there/other": "other"}
    possible = [{**dict.fromkeys(old, "old"), **others}, {**dict.fromkeys(NAMES, "new"), **others}]
    for state in states:
        assert state in possible
    assert all(one in states for one in possible)


OLD = [(), NAMES, NAMES[:1], NAMES[1:]]


@pytest.mark.parametrize("old", OLD, ids=len)
def test_a_writer_that_is_killed_at_any_step_leaves_all_old_or_all_new(old, tmp_path):
    assert_all_or_none(crashes(tmp_path / "root", old, force=bool(old)), old)


@pytest.mark.slow(reason="every step of the recovery is killed after every step of the write: 4 min, 150 MB")
@pytest.mark.parametrize("old", [(), NAMES[1:]], ids=len)
def test_so_does_one_that_is_killed_while_it_recovers_from_that(old, tmp_path):
    assert_all_or_none(crashes(tmp_path / "root", old, force=bool(old), again=True), old)


def test_without_recovery_files_of_two_writes_would_be_mixed(tmp_path):
    states = crashes(tmp_path / "root", NAMES, force=True, without=True)
    bare = [{name: text for name, text in state.items() if PREFIX not in name} for state in states]
    with pytest.raises(AssertionError):
        assert_all_or_none(bare, NAMES)
    with pytest.raises(AssertionError):
        assert_all_or_none(states, NAMES)


# ------------------------------------------------------------------------------------------------ a journal's trust


def left(folder: Path, *, undo: bool = False) -> Path:
    """Leave what a process that was killed leaves: one file is in its place, the other is not."""
    for name in ("a", "b"):
        (folder / name).write_text("old")
    with Transaction([folder]) as one:
        for name in ("a", "b"):
            one.scratch(folder / name).write_text("new")
        (made,) = one._scratch.values()
        moves = [transactions._move(made, file) for file in sorted((made / "new").iterdir())]
        for move in moves:
            transactions._second_name(move.final, move.old)
        transactions._write_journal(made, moves, force=True)
        if undo:
            (made / "journal").rename(made / "undo")
        transactions._put(moves[0], force=True)
    assert made.exists()
    return made


def texts(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in ("a", "b")]


@pytest.mark.parametrize(("undo", "word"), [(False, "new"), (True, "old")])
def test_a_journal_is_followed_and_goes(undo, word, tmp_path):
    left(tmp_path, undo=undo)
    assert texts(tmp_path) == ["new", "old"]
    transactions.recover([tmp_path])
    assert texts(tmp_path) == [word, word]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_journal_that_cannot_be_followed_is_undone(tmp_path):
    made = left(tmp_path)
    (made / "new" / "b").unlink()
    transactions.recover([tmp_path])
    assert texts(tmp_path) == ["old", "old"]
    assert not made.exists()


def changed(made: Path, **change: Any) -> None:
    journal = json.loads((made / "journal").read_text())
    journal["moves"][1].update(change)
    (made / "journal").write_text(json.dumps(journal))


@pytest.mark.parametrize(
    "damage",
    [
        lambda made: changed(made, name="../../outside"),
        lambda made: changed(made, name=".."),
        lambda made: changed(made, name=""),
        lambda made: changed(made, name=7),
        lambda made: changed(made, name="a\0"),
        lambda made: changed(made, scratch="/etc"),
        lambda made: changed(made, scratch=str(made.parent.parent)),
        lambda made: (made / "journal").write_text("{"),
        lambda made: (made / "journal").write_text("[" * 100_000),
        lambda made: (made / "journal").write_text('{"moves": 3}'),
        lambda made: (made / "lock").write_text('{"inode": 0, "primary": "/x/.onnx-analog-x"}'),
        lambda made: (made / "lock").write_text(json.dumps({"inode": made.stat().st_ino, "primary": "/etc"})),
        lambda made: (made / "lock").write_text("[]"),
    ],
)
def test_a_journal_that_no_process_wrote_here_is_not_followed(damage, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside").write_text("kept")
    made = left(folder)
    damage(made)
    write_all({folder / "c": write_text("c")})  # it is no hindrance
    assert texts(folder) == ["new", "old"]
    assert (tmp_path / "outside").read_text() == "kept"
    assert (folder / "c").read_text() == "c"


@pytest.mark.parametrize(("undo", "word"), [(False, "new"), (True, "old")])
def test_a_journal_is_followed_where_its_folder_was_moved_to(undo, word, tmp_path):
    (tmp_path / "one").mkdir()
    left(tmp_path / "one", undo=undo)
    (tmp_path / "one").rename(tmp_path / "two")
    transactions.recover([tmp_path / "two"])
    assert texts(tmp_path / "two") == [word, word]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["a", "b"]


def test_scratch_whose_journal_was_left_elsewhere_is_kept(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with Transaction([tmp_path / "one", tmp_path / "two"]) as both:
        first, second = both._scratch.values()
        both.scratch(tmp_path / "two" / "b").write_text("new")
        transactions._write_journal(first, [transactions._move(second, second / "new" / "b")], force=True)
    (tmp_path / "one").rename(tmp_path / "three")
    transactions.recover([tmp_path / "two"])
    assert (second / "new" / "b").read_text() == "new"


# ---------------------------------------------------------------------------------------------------------- readers


def test_a_reader_finishes_what_was_interrupted(tmp_path):
    left(tmp_path)
    transactions.check_whole(tmp_path / "b", error=ModelError)
    assert texts(tmp_path) == ["new", "new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_reader_by_a_link_does_too(tmp_path):
    (tmp_path / "one").mkdir()
    left(tmp_path / "one")
    (tmp_path / "link").symlink_to(tmp_path / "one" / "b")
    transactions.check_whole(tmp_path / "link", error=ModelError)
    assert texts(tmp_path / "one") == ["new", "new"]


def test_a_reader_who_cannot_finish_it_is_refused_these_files_and_no_others(tmp_path, monkeypatch):
    left(tmp_path)
    (tmp_path / "c").write_text("c")
    monkeypatch.setattr(transactions, "recover", lambda folders: None)  # as where nothing may be written
    for name in ("a", "b"):
        with pytest.raises(
            ModelError, match=f"{name}': writing it, with other files, was interrupted. Write them again"
        ):
            transactions.check_whole(tmp_path / name, error=ModelError)
    transactions.check_whole(tmp_path / "c", error=ModelError)


def test_a_reader_is_not_hindered_by_what_no_process_wrote_here(tmp_path, monkeypatch):
    made = left(tmp_path)
    monkeypatch.setattr(transactions, "recover", lambda folders: None)
    (made / "lock").write_text('{"inode": 0, "primary": "/x/.onnx-analog-x"}')
    transactions.check_whole(tmp_path / "b", error=ModelError)
    (tmp_path / f"{PREFIX}file").write_text("{")
    transactions.check_whole(tmp_path / "b", error=ModelError)


def test_models_and_manifests_are_read_so(tmp_path):
    left(tmp_path)
    with pytest.raises(ModelError, match="is not an ONNX model"):
        files.load(tmp_path / "a")
    assert texts(tmp_path) == ["new", "new"]
    left(tmp_path)
    with pytest.raises(ManifestError):
        manifest_json.read(tmp_path / "a")
    assert texts(tmp_path) == ["new", "new"]


def test_scratch_that_was_copied_is_left_alone(tmp_path):
    (tmp_path / "one").mkdir()
    made = left(tmp_path / "one")
    subprocess.run(["cp", "-r", tmp_path / "one", tmp_path / "two"], check=True)
    transactions.recover([tmp_path / "two"])
    assert texts(tmp_path / "two") == ["new", "old"]
    assert (tmp_path / "two" / made.name).exists()


def test_a_link_is_no_scratch(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / f"{PREFIX}x").symlink_to(left(tmp_path / "one"))
    transactions.recover([tmp_path / "two"])
    assert texts(tmp_path / "one") == ["new", "old"]


def test_scratch_of_a_process_that_lives_is_left_alone(tmp_path):
    with Transaction([tmp_path]) as one:
        one.scratch(tmp_path / "a").write_text("a")
        transactions.recover([tmp_path])
        write_all({tmp_path / "b": write_text("b")})
        one.commit(force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


# -------------------------------------------------------------------------------------------------- many at a time


def test_a_file_that_came_meanwhile_is_not_replaced_and_nothing_is_written(tmp_path):
    with Transaction([tmp_path]) as one:
        for name in ("a", "b"):
            one.scratch(tmp_path / name).write_text("new")
        (tmp_path / "b").write_text("theirs")
        with pytest.raises(OutputError, match="b' already exists"):
            one.commit(force=False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "theirs"}


def test_a_file_that_comes_between_two_moves_is_not_replaced_and_they_are_undone(tmp_path, monkeypatch):
    real = os.link

    def link(source: Path, target: Path, **options: Any) -> None:
        if target.name == "b":
            target.write_text("theirs")
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OutputError, match="b' already exists"):
        write_all({tmp_path / "a": write_text("new"), tmp_path / "b": write_text("new")})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "theirs"}


@pytest.mark.parametrize("force", [False, True])
def test_a_file_system_without_second_names_is_no_hindrance(force, tmp_path, monkeypatch):
    def link(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    if force:
        (tmp_path / "a").write_text("old")
    write_all({tmp_path / "a": write_text("new"), tmp_path / "b": write_text("new")}, force=force)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_two_writers_leave_the_set_of_one_of_them(tmp_path):
    script = (
        "import sys; from pathlib import Path; from onnx_analog.disk.writing import write_all, write_text\n"
        "for turn in range(60):\n"
        "    write_all({Path(sys.argv[1]) / name: write_text(f'{sys.argv[2]} {turn}') for name in 'abc'}, force=True)\n"
    )
    line = [sys.executable, "-c", script, str(tmp_path)]
    writers = [subprocess.Popen([*line, word], cwd=ROOT) for word in ("one", "two")]
    mixed = 0
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / "a").exists():
            with transactions.locked([tmp_path]):
                mixed += len({(tmp_path / name).read_text() for name in "abc"}) > 1
        time.sleep(0.003)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert mixed == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_folder_that_is_held_for_long_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(transactions, "WAIT_S", 0.1)
    with transactions.locked([tmp_path]), pytest.raises(OutputError, match=r"another process writes to .* for 0\.1 s"):
        write_all({tmp_path / "a": write_text("a")})
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------------- signals

ENDED = """
import os, signal, sys, time
from pathlib import Path
from onnx_analog.disk.transactions import tidy_ends
from onnx_analog.disk.writing import new_folder, write_all
folder, number, ignored = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)  # under nohup, SIGHUP comes ignored
def write(path):
    path.write_text("half")
    path.with_name("more").write_text("half")
    os.kill(os.getpid(), number)
    time.sleep(0.01)
with tidy_ends(), new_folder(folder / "made" / "here"):
    write_all({folder / "made" / "here" / "a": write, folder / "b": write})
"""


def ended(folder: Path, number: int, *, ignored: bool) -> int:
    line = [sys.executable, "-c", ENDED, str(folder), str(int(number)), str(ignored)]
    return subprocess.run(line, cwd=ROOT, check=False).returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=str)
def test_a_signal_that_ends_the_process_takes_the_scratch_along(number, tmp_path):
    assert ended(tmp_path, number, ignored=False) == -number
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    assert ended(tmp_path, signal.SIGHUP, ignored=True) == 0
    assert (tmp_path / "made/here/a").read_text() == "half"


def test_handlers_are_those_of_before_afterwards(tmp_path):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)]
    write_all({tmp_path / "a": write_text("a")})
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)] == before


def test_other_threads_write_too(tmp_path):
    thread = threading.Thread(target=write_all, args=[{tmp_path / "a": write_text("a")}])
    thread.start()
    thread.join()
    assert (tmp_path / "a").read_text() == "a"


@pytest.mark.slow(reason="thirty writers are started and killed: 5 s, 100 MB")
def test_a_writer_that_is_killed_at_any_time_leaves_all_old_or_all_new(tmp_path):
    script = (
        "import sys; from pathlib import Path; from onnx_analog.disk.writing import write_all, write_text\n"
        "turn = 0\n"
        "while True:\n"
        "    turn += 1\n"
        "    turn == 2 and print(flush=True)\n"  # from now on there are files
        "    write_all({Path(sys.argv[1]) / name: write_text(f'{turn}') for name in 'abcdef'}, force=True)\n"
    )
    for turn in range(30):
        with subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.02 + turn * 3.4e-4)
            writer.kill()
        transactions.recover([tmp_path])
        assert sorted(path.name for path in tmp_path.iterdir()) == list("abcdef")
        assert len({(tmp_path / name).read_text() for name in "abcdef"}) == 1
