"""Relevance of tokens and of series as people look at it: coloured text, and lines coloured by relevance.

Red is relevance for what is explained, blue against it; the strongest colour is the largest absolute value of
the sample.
"""

from __future__ import annotations

import html as escapes
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FileError, LRPError, ShapeError
from .files import whole
from .layers import Embedding, Transpose
from .network import Network
from .wiring import Node

LARGEST = 2**27
"""Bytes of a vocabulary that are read."""


def vocabulary(path: str | os.PathLike) -> list[str]:
    """The tokens of a vocabulary by their numbers.

    Parameters
    ----------
    path : path
        A text file with a token a line (``vocab.txt``), or ``tokenizer.json`` of the package tokenizers.

    Raises
    ------
    FileError
        No such file, or neither of the two.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "vocab.txt").write_text("[PAD]\\ncat\\n", encoding="utf-8")
    ...     vocabulary(Path(folder) / "vocab.txt")
    ['[PAD]', 'cat']
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise FileError(f"{path} is no vocabulary: it has {path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise FileError(f"{path} is no vocabulary: it is not UTF-8") from None
    if path.suffix != ".json":
        return text.splitlines()
    try:
        data = json.loads(text)
        numbers = dict(data["model"]["vocab"])
        numbers |= {entry["content"]: entry["id"] for entry in data.get("added_tokens") or []}
        if not all(isinstance(n, int) and 0 <= n < LARGEST for n in numbers.values()):
            raise ValueError("numbers of tokens")
        found = [""] * (max(numbers.values(), default=-1) + 1)
        for token, number in numbers.items():
            found[number] = str(token)
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise FileError(f"{path} has no vocabulary of the package tokenizers: {error!r:.80}") from None
    return found


def words(ids: Any, known: Sequence[str]) -> list[str]:
    """The tokens of one sample.

    Examples
    --------
    >>> words([1, 0], ["[PAD]", "cat"])
    ['cat', '[PAD]']
    """
    found = []
    for at, number in enumerate(np.asarray(ids).ravel()):
        if number != int(number) or not 0 <= number < len(known):
            raise LRPError(f"token {number:g} at {at} is none of the vocabulary's 0 .. {len(known) - 1}")
        found.append(known[int(number)])
    return found


def text_of_bytes(values: Any) -> list[str]:
    """Bytes as what is printed for them; what has no sign as two hexadecimal digits, others as a dot.

    Examples
    --------
    >>> text_of_bytes([104, 105, 0, 256])
    ['h', 'i', '00', '.']
    """
    found = []
    for value in np.asarray(values).ravel().astype(int).tolist():
        plain = 32 < value < 127
        found.append(chr(value) if plain else f"{value:02x}" if 0 <= value < 256 else ".")
    return found


def colours(relevance: Any) -> np.ndarray:
    """Red, green and blue, 0 .. 255, of each value: white is 0.

    Examples
    --------
    >>> colours([1.0, 0.0, -0.5]).tolist()
    [[255, 0, 0], [255, 255, 255], [128, 128, 255]]
    """
    R = np.asarray(relevance, float)
    if not np.isfinite(R).all():
        raise LRPError("relevance to be shown has a value that is NaN or infinite")
    largest = np.abs(R).max(initial=0.0)
    part = R / largest if largest else np.zeros_like(R)
    pale = np.rint(255 * (1 - np.abs(part)))
    made = np.where(part[..., None] >= 0, [1, 0, 0], [0, 0, 1]) * (255 - pale[..., None]) + pale[..., None]
    return made.astype(int)


def _fit(tokens: Sequence[str], relevance: Any) -> np.ndarray:
    R = np.asarray(relevance, float)
    if R.shape != (len(tokens),):
        raise ShapeError(f"{len(tokens)} tokens need as many values of relevance, not an array {R.shape}")
    return R


KINDS = ("text", "series", "image", "table")
"""What an input may be shown as."""

BYTES = range(256, 261)
"""Sizes of an embedding whose tokens are bytes, and up to four marks."""


def _first(network: Network, name: str | None = None) -> list[Node]:
    """The nodes that are the first to do more with the first input than to move its values."""
    name = next(iter(network.inputs)) if name is None else name
    found: list[Node] = []
    for node in network.readers(name):
        found += _first(network, node.name) if node.layer.family == "shape" else [node]
    return found


def kind_of(network: Network) -> str:
    """What the network's first input is: "text" where its values are tokens, "series", "image" or "table".

    A series is (T, C) or (C, T) where the network keeps both axes, as recurrent layers and convolutions in
    one dimension do; a table is one row of values.

    Examples
    --------
    >>> from numpylrp.layers import Embedding
    >>> kind_of(Network([("embed", Embedding(np.ones((9, 4))))], input_shape=(5,)))
    'text'
    """
    first = _first(network)
    if any(isinstance(node.layer, Embedding) for node in first):
        return "text"
    rank = len(next(iter(network.inputs.values())))
    keeps = all(len(network.shapes[name]) == 2 for node in first for name in node.inputs)
    return "table" if rank == 1 else "series" if rank == 2 and keeps and first else "image"


def time_is_first(network: Network) -> bool:
    """Whether a series is (T, C): not where a convolution or pooling reads it as (C, T)."""
    reads = network.readers(next(iter(network.inputs)))
    last = any(node.layer.family in ("conv", "pool") for node in _first(network))
    return last == any(isinstance(node.layer, Transpose) for node in reads)


def words_of(network: Network, ids: Any, known: Sequence[str] | None = None) -> list[str]:
    """The tokens of one sample as they are shown: by a vocabulary, as bytes, or as numbers.

    Examples
    --------
    >>> from numpylrp.layers import Embedding
    >>> words_of(Network([("embed", Embedding(np.ones((256, 2))))], input_shape=(2,)), [72, 105])
    ['H', 'i']
    """
    if known is not None:
        return words(ids, known)
    tables = [len(node.layer.table) for node in _first(network) if isinstance(node.layer, Embedding)]
    if tables and tables[0] in BYTES:
        return text_of_bytes(ids)
    return [f"{value:g}" for value in np.asarray(ids).ravel()]


def terminal(tokens: Sequence[str], relevance: Any) -> str:
    """Tokens on coloured ground, for a terminal of 24-bit colours.

    Parameters
    ----------
    tokens : sequence of T str
    relevance : (T,) array

    Examples
    --------
    >>> terminal(["a"], [1.0])
    '\\x1b[30;48;2;255;0;0ma\\x1b[0m'
    """
    marks = [
        f"\x1b[30;48;2;{r};{g};{b}m{_plain(token)}\x1b[0m"
        for token, (r, g, b) in zip(tokens, colours(_fit(tokens, relevance)))
    ]
    return " ".join(marks)


def _plain(token: str) -> str:
    """A token without what a terminal would act on."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in token)


def page(samples: Sequence[tuple[str, Sequence[str], Any]], path: str | os.PathLike | None = None) -> str:
    """An HTML page of coloured texts, with the relevance of each token as its tooltip.

    Parameters
    ----------
    samples : sequence of (title, tokens, relevance)
    path : path, optional
        Where to write it.

    Returns
    -------
    str

    Examples
    --------
    >>> "<b>" in page([("a <b>", ["x"], [1.0])])
    False
    """
    parts = ['<!DOCTYPE html>\n<meta charset="utf-8">\n<title>Relevance</title>\n']
    for title, tokens, relevance in samples:
        R = _fit(tokens, relevance)
        parts.append(f"<h3>{escapes.escape(title)}</h3>\n<p>\n")
        for token, value, (r, g, b) in zip(tokens, R, colours(R)):
            style = f"background: rgb({r}, {g}, {b})"
            parts.append(f'<span style="{style}" title="{value:.4g}">{escapes.escape(token)}</span>\n')
        parts.append("</p>\n")
    made = "".join(parts)
    if path is not None:
        with whole(path) as beside:
            Path(beside).write_text(made, encoding="utf-8")
    return made


def picture(
    tokens: Sequence[str],
    relevance: Any,
    path: str | os.PathLike | None = None,
    *,
    width: int = 90,
) -> Any:
    """A text on coloured ground as a picture, in lines (extra ``plot``).

    Parameters
    ----------
    tokens : sequence of T str
    relevance : (T,) array
    path : path, optional
        An image to write.
    width : int
        Characters of a line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    shades = colours(_fit(tokens, relevance)) / 255
    from .plot import figure, literal, save_figure

    rows: list[list[tuple[int, str, Any]]] = [[]]
    at = 0
    for token, shade in zip(tokens, shades):
        text = literal(_plain(token)) or " "
        if at and at + len(text) > width:
            rows.append([])
            at = 0
        rows[-1].append((at, text, shade))
        at += len(text) + 1
    made = figure(0.085 * width + 0.4, 0.24 * len(rows) + 0.3)
    axis = made.subplots()
    for n, row in enumerate(rows):
        for place, text, shade in row:
            axis.barh(n, len(text), 0.85, left=place, color=shade)
            axis.text(place + len(text) / 2, n, text, ha="center", va="center", family="monospace", size=8)
    axis.set(xlim=(0, width), ylim=(len(rows) - 0.4, -0.6))
    axis.set_axis_off()
    if path is not None:
        save_figure(made, path)
    return made


def table(
    names: Sequence[str], x: Any, relevance: Any, path: str | os.PathLike | None = None, *, most: int = 30
) -> Any:
    """A row of a table: a bar for each value, those with the largest relevance first (extra ``plot``).

    Parameters
    ----------
    names : sequence of D str
    x, relevance : (D,) array
    path : path, optional
        An image to write.
    most : int
        Only that many bars.

    Returns
    -------
    matplotlib.figure.Figure
    """
    R, x = _fit(names, relevance), np.asarray(x, float)
    first = np.argsort(-np.abs(R), kind="stable")[:most]
    from .plot import figure, literal, save_figure

    made = figure(6, 0.22 * len(first) + 0.8)
    axis = made.subplots()
    axis.barh(range(len(first)), R[first], color=colours(R)[first] / 255, edgecolor="0.6", linewidth=0.5)
    axis.set_yticks(range(len(first)), [literal(f"{names[k]} = {x[k]:.4g}") for k in first], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color="0.4", linewidth=0.8)
    axis.set_xlabel("relevance")
    if path is not None:
        save_figure(made, path)
    return made


def series(
    x: Any,
    relevance: Any,
    path: str | os.PathLike | None = None,
    *,
    channels: Sequence[str] | None = None,
    time_first: bool = True,
) -> Any:
    """A series as lines, one row a channel, coloured by relevance (extra ``plot``).

    Parameters
    ----------
    x, relevance : (T, C) array, or (C, T) where not `time_first`
        One sample.
    path : path, optional
        An image to write.
    channels : sequence of C str, optional

    Returns
    -------
    matplotlib.figure.Figure
    """
    x, R = np.asarray(x, float), np.asarray(relevance, float)
    if x.ndim != 2 or x.shape != R.shape:
        raise ShapeError(
            f"a series and its relevance must have one shape (T, C), not {x.shape} and {R.shape}"
        )
    x, R = (x.T, R.T) if time_first else (x, R)
    names = [str(n) for n in range(len(x))] if channels is None else list(channels)
    if len(names) != len(x):
        raise ShapeError(f"{len(names)} names for {len(x)} channels")
    from .plot import figure, save_figure

    made = figure(9, 1.2 + 1.1 * len(x))
    from matplotlib.collections import LineCollection

    axes = made.subplots(len(x), 1, sharex=True, squeeze=False)[:, 0]
    shades = colours(R) / 255
    time = np.arange(x.shape[1])
    for row, name, values, shade in zip(axes, names, x, shades):
        points = np.stack([time, values], 1)
        ends = np.stack([points[:-1], points[1:]], 1)
        row.add_collection(LineCollection([*ends], colors=(shade[:-1] + shade[1:]) / 2, linewidths=2))
        row.set(xlim=(-0.5, len(time) - 0.5), ylabel=name, facecolor="0.75")
        row.set_ylim(values.min() - 0.1 * (np.ptp(values) + 1), values.max() + 0.1 * (np.ptp(values) + 1))
    axes[-1].set_xlabel("time")
    if path is not None:
        save_figure(made, path)
    return made
