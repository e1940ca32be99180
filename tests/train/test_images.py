import numpy as np
import pytest
import torch

from onnx_analog.errors import DataError
from onnx_analog.train.images import CIFAR10, MNIST, load


def images(count=20):
    x = np.random.default_rng(0).integers(256, size=(count, 4, 5, 3), dtype=np.uint8)
    return x, np.arange(count) % 10


def loaded(tmp_path, x, y, normalisation=CIFAR10):
    np.savez(tmp_path / "i.npz", x=x, y=y)
    return load(tmp_path / "i.npz", normalisation)


def test_inputs_are_normalised_by_hand(tmp_path):
    x, y = images()
    found = loaded(tmp_path, x, y).inputs(slice(3))
    by_hand = (x[:3] / 255 - np.array(CIFAR10.mean)) / np.array(CIFAR10.std)
    np.testing.assert_allclose(found, np.moveaxis(by_hand, 3, 1), rtol=1e-5, atol=1e-6)


def test_grey_images_gain_a_channel(tmp_path):
    x, y = images()
    assert loaded(tmp_path, x[..., 0], y, MNIST).inputs().shape == (20, 1, 4, 5)


def test_an_epoch_is_every_image_once(tmp_path):
    found = loaded(tmp_path, *images())
    rows = torch.cat([batch.rows for batch in found.epoch(6, seed=0, epoch=1, flips=True)])
    assert sorted(rows.tolist()) == list(range(20))


def test_an_epoch_depends_on_seed_and_number_only(tmp_path):
    found = loaded(tmp_path, *images())

    def order(seed, epoch):
        return [(b.rows.tolist(), b.flipped.tolist()) for b in found.epoch(6, seed=seed, epoch=epoch, flips=True)]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_flipped_images_are_mirrored_left_to_right(tmp_path):
    found = loaded(tmp_path, *images())
    (batch,) = found.epoch(20, seed=0, epoch=1, flips=True)
    assert batch.flipped.any()
    assert not batch.flipped.all()
    for x, row, flipped in zip(batch.x, batch.rows, batch.flipped, strict=True):
        plain = found.inputs(row[None])[0]
        assert torch.equal(x, plain.flip(2) if flipped else plain)
    (still,) = found.epoch(20, seed=0, epoch=1, flips=False)
    assert not still.flipped.any()


def test_the_last_images_are_held_out(tmp_path):
    found = loaded(tmp_path, *images())
    ours, held = found.split(5)
    assert (len(ours), len(held)) == (15, 5)
    assert torch.equal(torch.cat([ours.x, held.x]), found.x)
    assert torch.equal(torch.cat([ours.y, held.y]), found.y)


@pytest.mark.parametrize("count", [0, 20, 21])
def test_some_images_must_be_left(tmp_path, count):
    with pytest.raises(DataError, match="cannot be held out"):
        loaded(tmp_path, *images()).split(count)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((3, 4, 5, 3), np.float32), np.zeros(3)),
        (np.zeros((3, 4, 5, 3), np.uint8), np.zeros(4)),
        (np.zeros((3, 4, 5), np.uint8), np.zeros(3)),
        (np.zeros((3, 60), np.uint8), np.zeros(3)),
    ],
    ids=["floats", "too many labels", "one channel", "flat"],
)
def test_what_are_no_images_with_labels(tmp_path, x, y):
    with pytest.raises(DataError, match="not images"):
        loaded(tmp_path, x, y)


def test_a_file_without_labels(tmp_path):
    np.savez(tmp_path / "i.npz", x=np.zeros((3, 4, 5, 3), np.uint8))
    with pytest.raises(DataError, match="has no array 'y'; it has x"):
        load(tmp_path / "i.npz", CIFAR10)


@pytest.mark.parametrize(
    ("size", "said"), [(0, "not an npz file of plain arrays"), (5, "a part is missing"), (100, "a part is missing")]
)
def test_a_file_that_is_not_whole(tmp_path, size, said):
    loaded(tmp_path, np.zeros((3, 4, 5, 3), np.uint8), np.zeros(3, np.uint8))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=said):
        load(path, CIFAR10)


def test_images_move_by_at_most_so_many_pixels_and_the_mean_comes_in(tmp_path):
    found = loaded(tmp_path, *images())
    (batch,) = found.epoch(20, seed=0, epoch=1, flips=False, shift=2)
    moves = set()
    for x, row in zip(batch.x, batch.rows, strict=True):
        padded = torch.nn.functional.pad(found.inputs(row[None])[0], (2, 2, 2, 2))
        fits = [(up, left) for up in range(5) for left in range(5)
                if torch.equal(x, padded[:, up : up + 4, left : left + 5])]  # fmt: skip
        assert len(fits) == 1
        moves |= set(fits)
    assert len(moves) > 8
    (still,) = found.epoch(20, seed=0, epoch=1, flips=False)
    assert torch.equal(still.x, found.inputs(still.rows))
