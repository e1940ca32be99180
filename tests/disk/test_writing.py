import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_analog.disk import writing
from onnx_analog.disk.writing import write_all, write_text
from onnx_analog.errors import ModelError, OptionError, OutputError
from onnx_analog.graph import files


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def failing(error: BaseException) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text("half")
        path.with_name("more").write_text("half")
        raise error

    return write


def test_all_are_written(tmp_path):
    (tmp_path / "b").mkdir()
    write_all({tmp_path / "a.txt": write_text("α"), tmp_path / "b" / "c.txt": write_text("γ")})
    assert contents(tmp_path) == {"a.txt": "α".encode(), "b/c.txt": "γ".encode()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b"]


def test_what_a_writer_puts_beside_its_file_is_written_too(tmp_path):
    def write(path: Path) -> None:
        path.write_text("a")
        path.with_name("more").write_text("b")

    write_all({tmp_path / "a": write})
    assert contents(tmp_path) == {"a": b"a", "more": b"b"}


@pytest.mark.parametrize("error", [ValueError("odd"), ModelError("odd"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("force", [False, True])
def test_a_writer_that_fails_leaves_nothing_behind(error, force, tmp_path):
    (tmp_path / "other").write_text("kept")
    with pytest.raises(type(error)) as caught:
        write_all({tmp_path / "a": write_text("a"), tmp_path / "b": failing(error)}, force=force)
    assert caught.value is error
    assert contents(tmp_path) == {"other": b"kept"}
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_disk_that_is_full_is_said_in_one_line(tmp_path):
    with pytest.raises(OutputError, match=r"^cannot write '.*b': No space left on device\. Nothing was changed$"):
        write_all({tmp_path / "a": write_text("a"), tmp_path / "b": failing(OSError(28, "No space left on device"))})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_is_there_is_replaced_only_by_force(force, tmp_path):
    (tmp_path / "b").write_text("old")
    writers = {tmp_path / "a": write_text("new"), tmp_path / "b": write_text("new")}
    if force:
        write_all(writers, force=True)
        assert contents(tmp_path) == {"a": b"new", "b": b"new"}
        return
    with pytest.raises(OutputError, match=r"b' already exists: replace it with force=True"):
        write_all(writers)
    assert contents(tmp_path) == {"b": b"old"}


def test_nothing_is_computed_for_a_file_that_is_there(tmp_path):
    (tmp_path / "b").write_text("old")
    with pytest.raises(OutputError, match="already exists"):
        write_all({tmp_path / "b": failing(AssertionError("was called"))})


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_never_replaced(force, tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputError, match="b' is a folder; a file is needed"):
        write_all({tmp_path / "a": write_text("a"), tmp_path / "b": write_text("b")}, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("parent", ["none", "file"])
def test_a_folder_that_is_none_is_said(parent, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match=f"cannot write in the folder '.*{parent}': .*(does not exist|not a folder)"):
        write_all({tmp_path / "a": write_text("a"), tmp_path / parent / "b": write_text("b")})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    real = tempfile.mkdtemp

    def mkdtemp(*, prefix: str, dir: Path) -> Any:  # noqa: A002 - its name in the standard library
        if dir.name == "locked":
            raise PermissionError(13, "Permission denied")
        return real(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    (tmp_path / "locked").mkdir()
    with pytest.raises(OutputError, match=r"locked': Permission denied\. Nothing was changed"):
        write_all({tmp_path / "a": write_text("a"), tmp_path / "locked" / "b": write_text("b")})
    assert [path.name for path in tmp_path.iterdir()] == ["locked"]


@pytest.mark.parametrize("old", [{}, {"a": b"old", "b": b"old"}, {"b": b"old"}], ids=["none", "both", "second"])
def test_a_move_that_fails_takes_back_those_before(old, tmp_path, monkeypatch):
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target) == tmp_path / "b" and self.read_bytes() == b"new":
            raise PermissionError(13, "Permission denied")
        return Path(real(self, target))

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError, match="Permission denied"):
        write_all({tmp_path / "a": write_text("new"), tmp_path / "b": write_text("new")}, force=True)
    assert contents(tmp_path) == old


@pytest.mark.parametrize("there", [False, True])
def test_a_new_folder_goes_again_if_it_stays_empty(there, tmp_path):
    folder = tmp_path / "a" / "b"
    if there:
        folder.mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), writing.new_folder(folder):
        raise ZeroDivisionError
    assert folder.is_dir() == there


def test_a_new_folder_stays_with_what_is_in_it(tmp_path):
    with pytest.raises(ZeroDivisionError), writing.new_folder(tmp_path / "a"):
        write_all({tmp_path / "a" / "b": write_text("kept"), tmp_path / "a" / "c": failing(ZeroDivisionError())})
    assert contents(tmp_path) == {}
    with writing.new_folder(tmp_path / "a"):
        write_text("kept")(tmp_path / "a" / "b")
    with pytest.raises(ModelError), writing.new_folder(tmp_path / "a"):
        files.load(tmp_path / "none.onnx")
    assert contents(tmp_path) == {"a/b": b"kept"}


def test_a_new_folder_in_a_file_is_refused(tmp_path):
    (tmp_path / "a").write_text("kept")
    with pytest.raises(OutputError, match="cannot make the folder"), writing.new_folder(tmp_path / "a" / "b"):
        raise AssertionError("entered")


def test_text_is_utf_8(tmp_path):
    write_text("μ")(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"\xce\xbc"


@pytest.mark.parametrize("there", [(), ("a",), ("a", "a/b")], ids=len)
def test_folders_that_were_made_are_taken_away_again(tmp_path, there):
    for name in there:
        (tmp_path / name).mkdir()
    with pytest.raises(KeyError), writing.new_folder(tmp_path / "a/b/c"):
        raise KeyError
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == list(there)


def test_folders_that_hold_something_stay(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").touch()
    with pytest.raises(KeyError), writing.new_folder(tmp_path / "a/b"):
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "file"]


# ------------------------------------------------------------------------------------------------------- checking


def odd(kind: str, path: Path) -> None:
    """Make something at a path that is no regular file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.with_name("target"))
        if kind == "link":
            path.with_name("target").write_text("kept")


def state(path: Path) -> tuple[int, ...]:
    """Return what changes when a path is written to or replaced; not its access time, which reading a link sets."""
    found = path.lstat()
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link", "dangling link"])
def test_only_regular_files_are_replaced(kind, force, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    odd(kind, Path("a"))
    before = state(Path("a"))
    words = "is a (folder|link|device, a pipe or a socket)"
    with pytest.raises(OutputError, match=words):
        write_all({Path("b"): write_text("b"), Path("a"): write_text("a")}, force=force)
    assert state(Path("a")) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "target"}
    assert kind != "link" or Path("target").read_text() == "kept"


def test_what_becomes_a_link_while_it_is_written_is_not_replaced(tmp_path):
    def write(path: Path) -> None:
        path.write_text("new")
        (tmp_path / "a").symlink_to(tmp_path / "target")

    with pytest.raises(OutputError, match="a' is a link"):
        write_all({tmp_path / "a": write}, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").is_symlink()


SPELLINGS = ["in", "./in", "sub/../in", "link", "sub/back/in", "hard", "to-in"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("output", SPELLINGS)
@pytest.mark.parametrize("perhaps", [False, True])
def test_an_output_is_no_input_however_it_is_spelt(output, perhaps, force, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").write_text("kept")
    Path("sub").mkdir()
    Path("sub/back").symlink_to("..")
    Path("link").symlink_to("in")
    Path("to-in").symlink_to(tmp_path / "in")
    os.link("in", "hard")
    given = {"outputs": ["new"], "perhaps": [output]} if perhaps else {"outputs": [output]}
    paths = {name: [Path(one) for one in several] for name, several in given.items()}
    with pytest.raises(OutputError, match=r"is an input.* and is not replaced"):
        writing.check_outputs(inputs=[Path("in")], force=force, **paths)


@pytest.mark.parametrize("other", ["out", "./out", "sub/../out", "sub/back/out"])
@pytest.mark.parametrize("there", [False, True])
def test_two_outputs_are_two_files(other, there, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("sub/back").symlink_to("..")
    if there:
        Path("out").write_text("old")
    with pytest.raises(OptionError, match="would be the same file"):
        writing.check_outputs([Path("out"), Path(other)], force=True)
    with pytest.raises(OptionError, match="would be the same file"):
        writing.check_outputs([Path("out")], force=True, perhaps=[Path(other)])


def test_names_that_are_one_in_the_file_system_only_are_refused_too(tmp_path):
    """As A and a are in some: here a writer puts a file beside its own that is another output's."""

    def write(path: Path) -> None:
        path.write_text("a")
        path.with_name("B").write_text("beside")

    with pytest.raises(OutputError, match="B' and another output would be the same file"):
        write_all({tmp_path / "a": write, tmp_path / "B": write_text("b")})
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_asked_for_only_where_an_output_is_there(tmp_path):
    def inputs() -> Iterator[Path]:
        yield tmp_path / str(1 // 0)

    writing.check_outputs([tmp_path / "a"], inputs(), force=True)
    (tmp_path / "a").touch()
    with pytest.raises(ZeroDivisionError):
        writing.check_outputs([tmp_path / "a"], inputs(), force=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 256, "File name too long"),
        ("x" * 5000, "File name too long"),
        ("/".join(["x" * 200] * 30), "File name too long"),
        ("a\0b", "null byte"),
        ("none/a", "it does not exist. Create it first"),
        ("file/a", "is not a folder"),
        ("loop/a", "(Too many levels of symbolic links|does not exist)"),
        ("\udcff/a", "does not exist"),
        (".", "is a folder"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_a_path_that_cannot_be_is_one_line(name, said, force, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    for call in (writing.check_outputs, lambda paths, force: write_all({paths[0]: write_text("a")}, force=force)):
        with pytest.raises(OutputError, match=said) as found:
            call([Path(name)], force=force)
        assert len(str(found.value)) <= 300
        assert str(found.value).isprintable()
    assert {path.name for path in tmp_path.iterdir()} == {"file", "loop"}


@pytest.mark.parametrize("there", [False, True])
def test_a_new_folder_may_be_missing_if_it_will_be_made(there, tmp_path):
    if there:
        (tmp_path / "a").mkdir()
    writing.check_outputs([tmp_path / "a" / "b" / "c"], force=False, new_folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"] * there
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file' is not a folder|Not a directory"):
        writing.check_outputs([tmp_path / "file" / "b" / "c"], force=False, new_folder=True)


def test_a_folder_that_may_not_be_written_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="no permission to write in"):
        write_all({tmp_path / "a": failing(AssertionError("was called"))})


def test_nothing_to_write_is_no_failure(tmp_path):
    write_all({})
