"""Samples from files: .npy, .npz, HDF5 and images, read a slice at a time."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from .bounds import check_range
from .errors import (
    FileError,
    InputRangeWarning,
    LRPError,
    MissingExtraError,
    ShapeError,
    check_values,
)
from .files import brief, check_unchanged, guarded, open_hdf5, read_npz, regular, written
from .network import Network
from .tokens import kind_of

IMAGES = (".png", ".jpg", ".jpeg", ".bmp")
LABELS = ("labels", "label", "y")
BLOCK = 256
"""Samples that are hashed at a time."""


@dataclass
class Samples:
    """Samples of one network input, not yet in memory.

    Attributes
    ----------
    source : array, HDF5 dataset, or list of image files
    shape : tuple
        Sample shape that the network takes.
    labels : (N,) array or None
    range : (low, high) or None
        What 0 and 255 of an image file become, and arrays are checked against.
    scale : float or None
        Factor for the values, of image files too; None where none was given.
    resize : bool
        Bring images to the size that the network takes.
    first : int or None
        Only that many.
    name : str
        The file that errors name; images are named themselves.
    """

    source: Any
    shape: tuple[int | None, ...]
    labels: np.ndarray | None = None
    range: tuple[Any, Any] | None = None
    scale: float | None = None
    resize: bool = False
    first: int | None = None
    name: str = "the samples"

    def __len__(self) -> int:
        return len(self.source) if self.first is None else min(self.first, len(self.source))

    def __getitem__(self, rows: slice) -> np.ndarray:
        rows = slice(*rows.indices(len(self)))
        if isinstance(self.source, list):
            x = np.stack([self._image(path) for path in self.source[rows]])
        else:
            with guarded(self.name):
                x = np.asarray(self.source[rows])
                check_values("the samples have", x, rows.start)
            if not _matches(x.shape[1:], self.shape):
                x = x.reshape(len(x), *self._filled(x.shape[1:]))  # gray images with a channel axis elsewhere
        if self.scale is not None:
            x = x * self.scale
        if self.range is not None:
            with guarded(self.name):
                check_range(x, self.range, 1e-3)
        elif self.scale is None and x.size and x.max() >= 255:
            warnings.warn(
                f"{self.name}: the inputs reach {x.max():g}, and the model does not say what range it takes: "
                "they are explained as they are (--input-range 0 1 or --scale 1/255 says otherwise, "
                "--scale 1 that this is right)",
                InputRangeWarning,
                stacklevel=2,
            )
        return x

    def checksum(self) -> str:
        """A hash of all samples and labels: what they are, whatever their files are called."""
        digest = hashlib.sha256(repr((len(self), self.shape, self.range, self.scale, self.resize)).encode())
        if isinstance(self.source, list):
            for path in self.source[: len(self)]:
                with regular(path).open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            digest.update(str((self.source.dtype, self.source.shape[1:])).encode())
            with guarded(self.name):
                for n in range(0, len(self), BLOCK):
                    digest.update(np.ascontiguousarray(self.source[n : min(n + BLOCK, len(self))]).tobytes())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels[: len(self)]).tobytes())
        return digest.hexdigest()[:32]

    def _filled(self, given: tuple) -> tuple:
        """The sample shape that the network takes, with axes of size 1 where it has them."""
        sizes = iter(n for n in given if n != 1)
        return tuple(1 if n == 1 else next(sizes, 1) for n in self.shape)

    def _image(self, path: Path) -> np.ndarray:
        try:
            from PIL import Image
        except ImportError:
            raise MissingExtraError("reading images needs Pillow: pip install 'numpylrp[plot]'") from None
        last = len(self.shape) == 3 and self.shape[0] not in (1, 3) and self.shape[2] in (1, 3)
        sizes: Any = (self.shape[2], *self.shape[:2]) if last else self.shape
        channels, *size = sizes
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as opened:
                    image = opened.convert("L" if channels == 1 else "RGB")
                    if self.resize and None not in size:
                        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
                    pixels = np.asarray(image, dtype=np.float64)
        except Exception as error:  # Pillow's decoders raise what they like
            raise FileError(f"{path} is not an image that can be read: {brief(error)}") from error
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if any(n not in (None, m) for n, m in zip(size, pixels.shape)):
            raise ShapeError(
                f"{path} has {pixels.shape[0]} x {pixels.shape[1]} pixels, but the network takes "
                f"{size[0]} x {size[1]} (--resize brings it to that size)"
            )
        if self.range is not None and self.scale is None:
            low, high = self.range
            pixels = np.asarray(low) + pixels / 255 * (np.asarray(high) - np.asarray(low))
        return pixels if last else pixels.transpose(2, 0, 1)


def samples(
    paths: Sequence[str | os.PathLike],
    network: Network,
    dataset: str | None = None,
    labels: str | None = None,
    scale: float | None = None,
    resize: bool = False,
) -> Samples:
    """The samples in files, for a network with one input.

    Parameters
    ----------
    paths : sequence of paths
        One .npy, .npz or .h5 file, or image files, or a folder of them.
    network : Network
    dataset : str, optional
        Name of the array in an .npz, or path of the dataset in an .h5 file. Needed only where not
        exactly one has the shape of the network's input.
    labels : str, optional
        Likewise for the labels; by default those called "labels", "label" or "y".
    scale : float, optional
        Factor for the values. Without it, 0 .. 255 of image files become the model's input range, and
        arrays are taken as they are.
    resize : bool
        Bring images to the size that the network takes.

    Raises
    ------
    FileError
        A file that is missing or can't be read, or lacks the dataset.
    ShapeError
        Samples that the network doesn't take.
    """
    if len(network.inputs) > 1:
        raise LRPError(f"the network has several inputs ({', '.join(network.inputs)}): use numpylrp.explain")
    shape = next(iter(network.inputs.values()))
    files = [Path(p) for p in paths]
    for path in files:
        if not path.exists():
            raise FileError(f"{path} does not exist")
    given = network.metadata.get("input_range")
    if kind_of(network) == "text":
        scale = 1 if scale is None else scale  # tokens are no pixels
    options: dict[str, Any] = {
        "scale": scale,
        "range": None if given is None else (given[0], given[1]),
    }
    if len(files) == 1 and files[0].is_dir():
        files = sorted(f for f in files[0].iterdir() if f.suffix.lower() in IMAGES)
        if not files:
            raise FileError(f"{paths[0]} is a folder without images ({', '.join(IMAGES)})")
    if all(path.suffix.lower() in IMAGES for path in files):
        if len(shape) not in (2, 3):
            raise ShapeError(f"the network takes samples of shape {shape}, not images")
        images = shape if len(shape) == 3 else (1, *shape)
        return Samples(files, images, resize=resize, name=str(paths[0]), **options)
    if len(files) > 1:
        raise LRPError("give one file of arrays, or image files")
    with guarded(files[0]):
        arrays = read_arrays(files[0])
        source = _pick(arrays, dataset, shape, files[0])
        if isinstance(source, h5py.Dataset):
            written(source, f"{files[0]}: {source.name}")
        if len(source) == 0:
            raise ShapeError(f"{files[0]} holds no samples: the array has shape {source.shape}")
        true = _labels(arrays, labels, len(source), files[0])
    return Samples(source, shape, true, name=str(files[0]), **options)


def read_npy(path: str | os.PathLike) -> np.ndarray:
    """The array of an .npy file."""
    array = _npy(regular(path))
    if array.dtype.kind not in "fiub":
        raise FileError(f"{path} must be an .npy file of one array of numbers")
    return np.asarray(array)


def _npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise FileError(f"{path} can't be read as .npy: {brief(error)}") from error
    if not isinstance(array, np.ndarray):
        raise FileError(f"{path} can't be read as .npy: it is an archive, an .npz")
    return array


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of numbers in a file by name; those of HDF5 stay on disk.

    Raises
    ------
    FileError
        A file that is missing, damaged, or of another kind.
    """
    kind = regular(path).suffix.lower()
    if kind == ".npz":
        arrays: dict[str, Any] = read_npz(path)
    elif kind == ".npy":
        arrays = {"": _npy(path)}
    elif kind in (".h5", ".hdf5", ".hdf"):
        file, arrays = open_hdf5(path), {}
        with guarded(path):
            check_unchanged(file, path)
            file.visititems(
                lambda name, item: arrays.update({name: item}) if isinstance(item, h5py.Dataset) else None
            )
    else:
        raise FileError(f"{path}: inputs must be .npy, .npz, .h5, or images ({', '.join(IMAGES)})")
    with guarded(path):
        return {name: array for name, array in arrays.items() if array.dtype.kind in "fiub" and array.shape}


def _matches(given: tuple, shape: tuple) -> bool:
    return len(given) == len(shape) and all(w in (None, n) for w, n in zip(shape, given))


def _fits(array: Any, shape: tuple) -> bool:
    """Whether these are samples of this shape, wherever a gray image has its axis of size 1, if at all."""
    given = array.shape[1:]
    return _matches(given, shape) or (
        1 in shape and _matches(tuple(n for n in given if n != 1), tuple(n for n in shape if n != 1))
    )


def _pick(arrays: dict[str, Any], name: str | None, shape: tuple, path: Path) -> Any:
    held = ", ".join(f"{key or 'array'} {array.shape}" for key, array in arrays.items()) or "none"
    if name is not None:
        if name.strip("/") not in arrays:
            raise FileError(f"{path} has no dataset {name!r}; it has {held}")
        array = arrays[name.strip("/")]
        if not _fits(array, shape):
            raise ShapeError(
                f"{path}: {name!r} has shape {array.shape}, but the network takes samples of {shape}"
            )
        return array
    fitting = [key for key, array in arrays.items() if _fits(array, shape)]
    if len(fitting) != 1:
        what = "no array" if not fitting else f"{len(fitting)} arrays ({', '.join(fitting)}: choose one)"
        raise ShapeError(f"{path} has {what} of samples of shape {shape}; it has {held}")
    return arrays[fitting[0]]


def _labels(arrays: dict[str, Any], name: str | None, count: int, path: Path) -> np.ndarray | None:
    if name is None:
        name = next((n for n in LABELS if n in arrays and arrays[n].shape == (count,)), None)
        if name is None:
            return None
    if name not in arrays or arrays[name].shape != (count,) or arrays[name].dtype.kind not in "iu":
        raise FileError(f"{path} has no integers {name!r}, one for each of the {count} samples")
    if isinstance(arrays[name], h5py.Dataset):
        written(arrays[name], f"{path}: {name}")
        return np.asarray(arrays[name][()])
    return np.asarray(arrays[name])
