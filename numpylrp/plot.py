"""Heatmaps: relevance as pictures. Needs the extra ``plot`` (matplotlib and Pillow)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import MissingExtraError, ShapeError
from .files import printable, whole

COLOURS = np.array(
    [[0.02, 0.19, 0.58], [0.25, 0.47, 0.86], [1.0, 1.0, 1.0], [0.91, 0.33, 0.27], [0.58, 0.0, 0.09]]
)
"""From the most negative relevance (blue) over none (white) to the most positive (red)."""


def require(*modules: str) -> None:
    """Fail with the name of the extra where matplotlib or Pillow is missing."""
    for module in modules or ("PIL", "matplotlib"):
        try:
            importlib.import_module(module)
        except ImportError:
            raise MissingExtraError(
                "pictures need matplotlib and Pillow: pip install 'numpylrp[plot]'"
            ) from None


def flat_map(R: np.ndarray) -> np.ndarray:
    """Relevance of one sample as (H, W): channels summed, vectors as one row.

    The channel axis of an image is the first, or the last where only that has 1 or 3 entries.

    Examples
    --------
    >>> flat_map(np.ones((3, 4, 5))).shape, flat_map(np.ones((4, 5, 3)))[0, 0], flat_map(np.ones(7)).shape
    ((4, 5), np.float64(3.0), (1, 7))
    """
    R = np.asarray(R)
    if R.ndim == 3:
        last = R.shape[0] not in (1, 3) and R.shape[2] in (1, 3)
        return R.sum(2 if last else 0)
    if R.ndim == 2:
        return R
    if R.ndim == 1:
        return R[None]
    raise ShapeError(f"a heatmap is made of one sample with 1 to 3 axes, not of shape {R.shape}")


def heatmap(R: np.ndarray, limit: float | None = None) -> np.ndarray:
    """Relevance of one sample as an RGB image: red for, blue against, white nothing.

    Parameters
    ----------
    R : (C, H, W), (H, W, C), (H, W) or (W,) array
        See `flat_map`.
    limit : float, optional
        The size of relevance that gets the full colour; by default the largest in R.

    Returns
    -------
    (H, W, 3) uint8 array

    Examples
    --------
    >>> heatmap(np.array([[-1.0, 0.0, 1.0]]))[0].tolist()
    [[5, 48, 148], [255, 255, 255], [148, 0, 23]]
    """
    R = flat_map(R).astype(float)
    limit = np.abs(R).max() if limit is None else limit
    at = np.clip(R / limit if limit > 0 else 0 * R, -1, 1)
    where = np.linspace(-1, 1, len(COLOURS))
    rgb = np.stack([np.interp(at, where, channel) for channel in COLOURS.T], axis=-1)
    return np.round(rgb * 255).astype(np.uint8)


def save_png(image: np.ndarray, path: str | os.PathLike, least: int = 224) -> None:
    """Write an (H, W, 3) or (H, W) uint8 image as PNG, pixels repeated until a side has `least` of them."""
    require("PIL")
    from PIL import Image

    times = max(1, -(-least // max(image.shape[:2])))
    image = image.repeat(times if image.shape[0] > 1 else max(times, 24), 0).repeat(times, 1)
    with whole(path) as beside:
        Image.fromarray(image).save(beside, format="PNG")


def picture(x: np.ndarray) -> np.ndarray:
    """One input sample as an image between 0 and 1, for matplotlib."""
    x = np.asarray(x, float)
    if x.ndim == 3 and x.shape[0] in (1, 3):
        x = x.transpose(1, 2, 0)
    if x.ndim == 3 and x.shape[2] != 3:
        x = x.mean(2)
    x = x[None] if x.ndim == 1 else x
    low, high = x.min(), x.max()
    return (x - low) / (high - low) if high > low else np.zeros_like(x)


def literal(text: str) -> str:
    r"""Text as it is, for matplotlib, which reads what stands between dollars as mathematics.

    Examples
    --------
    >>> literal(r"$\frac{$")
    '\\$\\frac{\\$'
    """
    return printable(text, 60).replace("$", r"\$")


def figure(width: float, height: float) -> Any:
    """A matplotlib figure that belongs to no window and no global state."""
    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def overview(
    inputs: np.ndarray,
    relevances: dict[str, np.ndarray],
    rows: Sequence[str] = (),
    title: str = "",
    path: str | os.PathLike | None = None,
) -> Any:
    """A sheet with a sample a row: the input, then a heatmap for each method.

    Every heatmap has its own colour range, from minus to plus its largest relevance: maps of
    different methods differ in size, and their shapes are what is compared.

    Parameters
    ----------
    inputs : (N, *input) array
    relevances : dict of (N, *input) arrays by name of the method
    rows : sequence of str
        What stands beside each row.
    title : str
    path : path, optional
        Where to write it as PNG.

    Returns
    -------
    matplotlib.figure.Figure
    """
    count, columns = len(inputs), 1 + len(relevances)
    made = figure(1.25 * columns + 1.1, 1.25 * count + (0.9 if title else 0.6))
    grid = made.subplots(count, columns, squeeze=False)
    for n, axes in enumerate(grid):
        axes[0].imshow(picture(inputs[n]), cmap="gray", aspect="equal", interpolation="nearest")
        for axis, (name, R) in zip(axes[1:], relevances.items()):
            axis.imshow(heatmap(R[n]), aspect="equal", interpolation="nearest")
            if n == 0:
                axis.set_title(literal(name), fontsize=9)
        for axis in axes:
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color="0.8", linewidth=0.6)
        if n < len(rows):
            axes[0].set_ylabel(literal(rows[n]), fontsize=9, rotation=0, ha="right", va="center", labelpad=8)
    grid[0, 0].set_title("input", fontsize=9)
    if title:
        made.suptitle(literal(title), fontsize=11)
    if path is not None:
        save_figure(made, path)
    return made


def tiles(
    inputs: np.ndarray,
    R: np.ndarray,
    labels: Sequence[str],
    title: str = "",
    path: str | os.PathLike | None = None,
) -> Any:
    """A sheet of samples side by side: inputs above, their heatmaps below, with a label each."""
    count = len(inputs)
    across = min(count, 6)
    down = -(-count // across)
    made = figure(1.35 * across + 0.4, 2.75 * down + (0.5 if title else 0.1))
    grid = made.subplots(2 * down, across, squeeze=False)
    for axis in grid.ravel():
        axis.set_axis_off()
    for n in range(count):
        above, below = grid[2 * (n // across), n % across], grid[2 * (n // across) + 1, n % across]
        above.imshow(picture(inputs[n]), cmap="gray", interpolation="nearest")
        above.set_title(literal(labels[n]), fontsize=9)
        below.imshow(heatmap(R[n]), interpolation="nearest")
        for axis in (above, below):
            axis.set_axis_on()
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color="0.8", linewidth=0.6)
    if title:
        made.suptitle(literal(title), fontsize=10)
    if path is not None:
        save_figure(made, path)
    return made


SHARE_COLOURS = {
    "bias": "#d98c3f",
    "epsilon": "#8f6bb3",
    "dropped": "#555555",
    "rule": "#3f9c8f",
    "padding": "#c7b83f",
}
"""One colour for each place that relevance can go to besides the inputs."""


def audit(account: Any, path: str | os.PathLike | None = None) -> Any:
    """Where relevance went, as a picture: a bar for each layer, from the output down to the input.

    The grey part of a bar was sent on; the others left the walk there (to the left of 0: they were
    given to it, or are negative). Layers that send all they receive are left out.

    Parameters
    ----------
    account : Audit
    path : path, optional
    """
    seed = float(np.mean(account.seed)) or 1.0
    changed = [
        row
        for row in account.rows.values()
        if sum(abs(float(np.mean(v))) for v in row.sinks.values()) > 1e-4 * abs(seed)
    ]
    arrived = float(np.mean(sum(account.inputs.values())))
    names = ["seed", *(row.name for row in changed), "input"]
    made = figure(7.0, 1.1 + 0.3 * len(names))
    axis = made.subplots()
    for n, name in enumerate(names):
        row = changed[n - 1] if 0 < n < len(names) - 1 else None
        parts = {name: float(np.mean(v)) for name, v in row.sinks.items()} if row else {}
        sent = seed if n == 0 else arrived if row is None else float(np.mean(row.sent))
        ends = {True: 0.0, False: 0.0}
        for share, value in {"sent on": sent, **parts}.items():
            if value:
                colour = SHARE_COLOURS.get(share, "#c9ced6")
                axis.barh(n, value, left=ends[value > 0], color=colour, height=0.72)
                ends[value > 0] += value
    axis.set(
        yticks=range(len(names)),
        yticklabels=[literal(name) for name in names],
        xlabel="relevance, mean over samples",
    )
    axis.invert_yaxis()
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.tick_params(axis="y", length=0, labelsize=8)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    shown = [s for s in SHARE_COLOURS if any(np.any(row.sinks[s]) for row in changed)]
    handles = [_patch("#c9ced6", "sent on"), *(_patch(SHARE_COLOURS[s], s) for s in shown)]
    axis.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
    )
    if path is not None:
        save_figure(made, path)
    return made


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def save_figure(made: Any, path: str | os.PathLike) -> None:
    """Write a figure as PNG, the same bytes for the same figure."""
    with whole(path) as beside:
        made.savefig(beside, format="png", metadata={"Software": None})
