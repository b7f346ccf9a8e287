"""Simple changes of a whole array: a factor, a sign, an order of axes, a normalization, sums of channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations

import numpy as np

# ---------------------------------------------------------------- measures


def size(ours: np.ndarray) -> float:
    """The largest |value|, 1 where all are 0."""
    return float(abs(ours).max()) if ours.size and abs(ours).max() else 1.0


def distance(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Largest difference, relative to the largest |value| expected."""
    return float(abs(theirs - ours).max() / size(ours)) if ours.size else 0.0


def norms(theirs: np.ndarray, ours: np.ndarray) -> tuple[float, float, float]:
    """Largest difference and L2 norm of the difference, relative to the values', and the cosine."""
    product = np.linalg.norm(theirs) * np.linalg.norm(ours)
    l2 = float(np.linalg.norm(theirs - ours) / (np.linalg.norm(ours) or 1.0))
    most = distance(theirs, ours)
    return most, l2, float(theirs.ravel() @ ours.ravel() / product) if product else float(not most)


def no_accident(wrong: np.ndarray, mask: np.ndarray) -> bool:
    """Whether that many wrong values would hardly all lie in so large a part by chance."""
    return bool(wrong.any()) and float(mask.mean()) ** int(wrong.sum()) < 0.1


# ---------------------------------------------------------------- axes


def moved(ours: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A sample's values in other orders: axes moved, axes misread, axes turned around."""
    shape = ours.shape[1:]
    order = {(1, 2, 0): "channels last", (2, 0, 1): "channels first"}
    for axes in permutations(range(len(shape))):
        if axes == tuple(range(len(shape))):
            continue
        text = order.get(axes, f"axes {axes}") if len(shape) == 3 else f"axes {axes}"  # type: ignore[arg-type]
        yield f"its axes moved ({text})", (turned := ours.transpose(0, *(a + 1 for a in axes)))
        misread = "NHWC and NCHW mixed up" if axes in order and len(shape) == 3 else "axes misread"
        yield f"{misread}: laid out with {text}, read as {shape}", turned.reshape(ours.shape)
        back = (0, *(a + 1 for a in np.argsort(axes)))
        read = ours.reshape(len(ours), *(shape[a] for a in axes)).transpose(back)
        yield f"{misread}: laid out as {shape}, read with {text}", read
    for axis in range(len(shape)):
        yield f"axis {axis} turned around", np.flip(ours, axis + 1)


# ---------------------------------------------------------------- what is made of a heatmap


def _axes(R: np.ndarray) -> tuple[int, ...]:
    return tuple(range(1, R.ndim))


def _over(R: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(R, below, out=np.zeros_like(R), where=below != 0)


def _stretched(R: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    low, high = (f(axis=axes, keepdims=True) for f in (R.min, R.max))
    return _over(R - low, high - low)


POSTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the wrong sign": np.negative,
    "the absolute value": np.abs,
    "the positive part": lambda R: np.maximum(R, 0),
    "the negative part": lambda R: np.minimum(R, 0),
    "the negative part, without its sign": lambda R: np.maximum(-R, 0),
    "the square": np.square,
    "scaled to 0 .. 1 between the smallest and largest value of each sample": lambda R: _stretched(
        R, _axes(R)
    ),
    "scaled to 0 .. 1 between the smallest and largest value": lambda R: _stretched(R, None),
    "divided by the largest |value| of each sample": lambda R: _over(R, abs(R).max(_axes(R), keepdims=True)),
    "divided by the largest |value|": lambda R: R / size(R),
    "divided by the largest value of each sample": lambda R: _over(R, R.max(_axes(R), keepdims=True)),
    "divided by the sum of each sample": lambda R: _over(R, R.sum(_axes(R), keepdims=True)),
    "divided by the sum of |values| of each sample": lambda R: _over(R, abs(R).sum(_axes(R), keepdims=True)),
    "divided by the L2 norm of each sample": lambda R: _over(
        R, np.sqrt((R * R).sum(_axes(R), keepdims=True))
    ),
    "with the mean of each sample subtracted": lambda R: R - R.mean(_axes(R), keepdims=True),
    "the absolute value, divided by the largest of each sample": lambda R: _over(
        abs(R), abs(R).max(_axes(R), keepdims=True)
    ),
    "the absolute value, scaled to 0 .. 1 in each sample": lambda R: _stretched(abs(R), _axes(R)),
    "the positive part, divided by the largest of each sample": lambda R: _over(
        np.maximum(R, 0), np.maximum(R, 0).max(_axes(R), keepdims=True)
    ),
}
"""What is made of relevance before it is shown."""

CHANNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "summed over channels": lambda R: R.sum(1),
    "the mean over channels": lambda R: R.mean(1),
    "the largest of its channels": lambda R: R.max(1),
    "the largest |value| of its channels": lambda R: abs(R).max(1),
    "the sum of |values| over channels": lambda R: abs(R).sum(1),
    "the L2 norm over channels": lambda R: np.sqrt((R * R).sum(1)),
    "the sum of positive values over channels": lambda R: np.maximum(R, 0).sum(1),
}
"""What is made of channels."""


def changed(ours: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Ours, changed in one of the known ways into an array of this shape."""
    if shape == ours.shape:
        for text, post in POSTS.items():
            yield f"is {text} of the definition's" if "the" == text[:3] else f"is {text}", post(ours)
        for text, other in moved(ours):
            if other.shape == shape:
                yield f"has the right values in another order: {text}", other
        if ours.ndim == 4 and shape[1] > 1:
            for text, reduce in CHANNELS.items():
                yield f"is {text}, repeated in each", np.broadcast_to(reduce(ours)[:, None], shape)
        if len(ours) > 1:
            yield "is the mean of all samples", np.broadcast_to(ours.mean(0), shape)
            yield "is the first sample's, repeated for all", np.broadcast_to(ours[:1], shape)
        return
    if ours.ndim == 4 and shape in (ours.shape[:1] + ours.shape[2:], (len(ours), 1, *ours.shape[2:])):
        for text, reduce in CHANNELS.items():
            yield f"is {text}", (map_ := reduce(ours)).reshape(shape)
            for more, post in POSTS.items():
                yield f"is {text}, then {more}", post(map_).reshape(shape)


def resampled(ours: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Ours with its last two axes at another size."""
    if ours.ndim < 3 or len(shape) != ours.ndim or shape[:-2] != ours.shape[:-2]:
        return
    (h, w), (p, q) = ours.shape[-2:], shape[-2:]
    if p % h == 0 and q % w == 0 and (p, q) != (h, w):
        yield "enlarged by repeating values", ours.repeat(p // h, -2).repeat(q // w, -1)
    if h % p == 0 and w % q == 0 and (p, q) != (h, w):
        blocks = ours.reshape(*shape[:-2], p, h // p, q, w // q)
        yield "made smaller by the sum of blocks", blocks.sum((-3, -1))
        yield "made smaller by the mean of blocks", blocks.mean((-3, -1))
        yield "made smaller by every n-th value", ours[..., :: h // p, :: w // q]


def other_shape(theirs: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """What values of another shape are, in words."""
    if theirs.shape[:1] != ours.shape[:1]:
        return ""
    for text, other in (*moved(ours), *resampled(ours, theirs.shape)):
        if other.shape == theirs.shape and distance(theirs, other) <= tolerance:
            return f"; the values are right, {text}"
    for axis in range(1, ours.ndim):
        for keep in (False, True):
            total = ours.sum(axis, keepdims=keep)
            if total.shape == theirs.shape and distance(theirs, total) <= tolerance:
                return f"; the values are right, summed over axis {axis - 1} of the sample"
    if theirs.size == ours.size and distance(theirs.reshape(ours.shape), ours) <= tolerance:
        return "; the values are right, in another shape"
    return ""


# ---------------------------------------------------------------- factors


def factors(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """For each sample the factor that brings ours nearest to theirs, with the axes of a batch."""
    axes = _axes(ours)
    below = np.square(ours).sum(axes, keepdims=True)
    return (theirs * ours).sum(axes, keepdims=True) / np.maximum(below, 1e-300)


def known_factors(ours: np.ndarray, total: np.ndarray) -> Mapping[str, np.ndarray]:
    """Factors of each sample that have a name."""
    n = len(ours)
    flat = ours.reshape(n, -1)
    return {
        "1 / the relevance to start from (a seed of 1)": 1 / np.where(total, total, np.nan),
        "1 / the number of samples": np.full(n, 1 / n),
        "1 / the largest |value| of the sample": 1 / np.maximum(abs(flat).max(1), 1e-300),
        "1 / the largest |value|": np.full(n, 1 / max(abs(flat).max(), 1e-300)),
        "1 / the sum of the sample": 1 / np.where(flat.sum(1), flat.sum(1), np.nan),
    }


def factor_text(k: np.ndarray, ours: np.ndarray, total: np.ndarray) -> tuple[str, bool]:
    """A factor of each sample, in words, and whether that says why: an unknown one does not."""
    why = next((f", {text}" for text, v in known_factors(ours, total).items() if np.allclose(k, v)), "")
    if not k.any():
        return "is 0 everywhere", True
    if np.allclose(k, k[0], rtol=1e-6):
        return f"is {k[0]:.6g} times the definition's{why}", len(k) > 1 or bool(why)
    text = f"is the definition's times a factor of each sample ({k.min():.8g} .. {k.max():.8g}){why}"
    return text, bool(why)


def order_of_samples(theirs: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """Whether samples are in another order."""
    if not 1 < len(ours) <= 64:
        return ""
    apart = [[distance(t, o) for o in ours] for t in theirs]
    order = np.argmin(apart, axis=1)
    if sorted(order) == list(range(len(ours))) and distance(theirs, ours[order]) <= tolerance:
        return f"is right, but its samples are in another order: {order.tolist()}"
    return ""


def simple(theirs: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """A factor, a sign or an order of axes that makes both equal, where no network is known."""
    k = float((theirs * ours).sum() / max(np.square(ours).sum(), 1e-300))
    if distance(theirs, -ours) <= tolerance:
        return "has the wrong sign"
    if distance(theirs, k * ours) <= tolerance:
        return f"is {k:.6g} times the reference's"
    for text, other in moved(ours):
        if other.shape == theirs.shape and distance(theirs, other) <= tolerance:
            return f"has the right values in another order: {text}"
    return ""
