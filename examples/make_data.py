"""Make the npz files of MNIST and CIFAR-10, which the other scripts read, from the files that are published.

    python examples/make_data.py mnist DIR      # {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz, from the MNIST page
    python examples/make_data.py cifar10 DIR    # cifar-10-binary.tar.gz, from the CIFAR-10 page

DIR holds the files. Written into --out are NAME-train.npz and NAME-test.npz with x, uint8 images of shape (n, 28, 28)
or (n, 32, 32, 3), and y, uint8 labels of shape (n,), in the order of the files.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from onnx_analog.cli.console import Command
from onnx_analog.cli.progress import progress
from onnx_analog.disk import writing
from onnx_analog.errors import DataError

SPLITS = {"train": "train", "test": "t10k"}
CIFAR10 = "cifar-10-binary.tar.gz"
BATCHES = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
ALL = [*BATCHES["train"], *BATCHES["test"]]


class Labelled(NamedTuple):
    """Images and labels, uint8."""

    x: NDArray[np.uint8]
    y: NDArray[np.uint8]


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say of a file that cannot be unpacked which it is."""
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"cannot unpack {str(path)!r}: {error}. Download it again.") from error


def idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of an IDX file of bytes: 0, 0, 8, its rank, its shape as big-endian int32, and what it holds."""
    with _whole(path):
        body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if body[:3] != b"\0\0\x08" or len(body) < 4 * (1 + body[3]):
        raise DataError(f"{str(path)!r} is no IDX file of bytes. Download it again.")
    shape = np.frombuffer(body, ">i4", count=body[3], offset=4)
    data = np.frombuffer(body, np.uint8, offset=4 * (1 + body[3]))
    if data.size != np.prod(shape):
        raise DataError(f"{str(path)!r} holds {data.size:,} bytes, not {np.prod(shape):,}. Download it again.")
    return data.reshape(shape)


def mnist(folder: Path) -> dict[str, Labelled]:
    """Return the splits of MNIST."""
    return {
        split: Labelled(
            idx(_there(folder, f"{prefix}-images-idx3-ubyte")), idx(_there(folder, f"{prefix}-labels-idx1-ubyte"))
        )
        for split, prefix in SPLITS.items()
    }


def _there(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            return path
    raise DataError(f"{name}.gz is not in {str(folder)!r}. Download it, or name the folder that has it.")


def records(body: bytes, name: str) -> Labelled:
    """Return the images of a CIFAR-10 batch: for each a label, then 1,024 bytes of red, of green and of blue."""
    if not body or len(body) % 3073:
        raise DataError(f"{name} of {CIFAR10} holds {len(body):,} bytes, which are no records of 3,073")
    rows = np.frombuffer(body, np.uint8).reshape(-1, 3073)
    return Labelled(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0])


def cifar10(folder: Path) -> dict[str, Labelled]:
    """Return the splits of CIFAR-10."""
    path = folder / CIFAR10
    if not path.exists():
        raise DataError(f"{CIFAR10} is not in {str(folder)!r}. Download it, or name the folder that has it.")
    batches = {}
    with _whole(path), tarfile.open(path) as archive, progress("unpacking", len(ALL)) as advance:
        for member in archive:  # each is read as it comes: to go back is to unpack all before it again
            name, body = Path(member.name).name, archive.extractfile(member)
            if body and name in ALL:
                batches[name] = records(body.read(), name)
                advance()
    if missing := [name for name in ALL if name not in batches]:
        raise DataError(f"{str(path)!r} has no {', '.join(missing)}. Download it again.")
    return {split: _joined([batches[name] for name in names]) for split, names in BATCHES.items()}


def _joined(parts: list[Labelled]) -> Labelled:
    return Labelled(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def writer(split: Labelled) -> writing.Writer:
    """Return a writer of a split, which has one label for each image."""
    if len(split.x) != len(split.y):
        raise DataError(f"{len(split.x):,} images have {len(split.y):,} labels. Download the files again.")
    return lambda path: np.savez(path, x=split.x, y=split.y)


READERS: dict[str, Callable[[Path], dict[str, Labelled]]] = {"mnist": mnist, "cifar10": cifar10}


@click.command(cls=Command)
@click.argument("name", type=click.Choice([*READERS]))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
@click.option("--force", is_flag=True, help="Replace files that are there.")
def main(name: str, folder: Path, out: Path, force: bool) -> None:
    """Make NAME-train.npz and NAME-test.npz from the files in FOLDER."""
    paths = {split: out / f"{name}-{split}.npz" for split in SPLITS}
    writing.check_outputs(paths.values(), force=force)
    writing.write_all({paths[split]: writer(found) for split, found in READERS[name](folder).items()}, force=force)
    print(*paths.values(), sep="\n")


if __name__ == "__main__":
    main()
