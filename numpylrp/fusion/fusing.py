"""Fusing: an equivalent network without normalization layers, and a report of what was done."""

from __future__ import annotations

import dataclasses
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import LRPError
from ..layers.base import Layer
from ..network import Network, Node
from ..text import aligned
from .after import through
from .before import into
from .pending import NotExact, Pending

DENSE_WARNING = """\
This network normalizes after fully connected layers. Guillemot et al. (2020), who introduced fusing
for LRP, advise against explaining networks that combine the two. The fused network is exactly
equivalent, but the normalization's shift becomes a bias of every unit, and a bias absorbs relevance
that no input gets. Look at what is "lost" in these layers before you trust a heatmap, compare it
with another composite, and if you can train again, normalize convolutions only."""


@dataclass(frozen=True)
class Fused:
    """What became of one normalization layer.

    Attributes
    ----------
    name, kind : str
    position : str
        What lies before and after it.
    done : bool
        Whether it is gone.
    identity : str
        How: "into the layers before", "into the layers after".
    into : tuple of str
        The layers that its scale and shift went into.
    reason : str
        Why it stays.
    difference : float or None
        Largest |difference| of the network's outputs that fusing this layer made, on probe inputs.
    """

    name: str
    kind: str
    position: str
    done: bool
    identity: str = ""
    into: tuple[str, ...] = ()
    reason: str = ""
    difference: float | None = None


@dataclass(frozen=True)
class Report:
    """What `fuse` did, one entry for each normalization layer."""

    entries: tuple[Fused, ...]
    difference: float | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def exact(self) -> bool:
        """Whether no normalization layer is left."""
        return all(entry.done for entry in self.entries)

    def __str__(self) -> str:
        if not self.entries:
            return "no normalization layers"
        rows = [("layer", "position", "fused", "difference")]
        for e in self.entries:
            what = f"{e.identity}: {', '.join(e.into)}" if e.done else f"no: {e.reason}"
            rows.append((e.name, e.position, what, "" if e.difference is None else f"{e.difference:.1e}"))
        gone = sum(e.done for e in self.entries)
        lines = [aligned(rows), f"{gone} of {len(self.entries)} normalization layers fused"]
        if self.difference is not None:
            lines.append(f"largest difference of the outputs on probe inputs: {self.difference:.1e}")
        return "\n".join([*lines, *(f"\n{warning}" for warning in self.warnings)])


def fuse(network: Network, names: Any = None, probe: int = 2) -> tuple[Network, Report]:
    """An equivalent network without normalization layers, where that can be had exactly.

    Each batch normalization, ``y = g x + s`` with ``g = gamma / sqrt(variance + eps)`` and
    ``s = beta - g mean``, goes into the linear layers before it, or else after it (Guillemot et al.
    2020, and the identities at the top of `numpylrp.fusion.before` and `numpylrp.fusion.after`). The
    learned scale and shift of LayerNorm, GroupNorm, InstanceNorm and RMSNorm go into the layers
    after them; the rest of these depends on the sample and stays. The argument is not changed.

    Parameters
    ----------
    network : Network
    names : sequence of str, optional
        Only these layers; one of them that can't be fused exactly is an error. By default all, and
        those that can't be stay.
    probe : int
        Number of random inputs on which both networks are compared; 0 for none. They are drawn from
        the ``input_range`` of the metadata, or from a normal distribution where that is unknown.

    Returns
    -------
    Network
    Report

    Raises
    ------
    NotExact
        A layer in `names` can't be fused exactly.

    Examples
    --------
    >>> from numpylrp.layers import BatchNorm, Conv1D
    >>> bn = BatchNorm(gamma=[2.0], beta=[1.0], mean=[3.0], variance=[4.0], eps=0.0)
    >>> net = Network([("conv", Conv1D([[[1.0, -1.0]]], [5.0])), ("bn", bn)], input_shape=(1, 4))
    >>> fused, report = fuse(net, probe=0)
    >>> fused["conv"].weight, fused["conv"].bias  # g = 2 / sqrt(4) = 1, s = 1 - 1 * 3 = -2
    (array([[[ 1., -1.]]]), array([3.]))
    >>> print(report)
    layer  position                    fused                         difference
    bn     conv (Conv1D) -> bn -> end  into the layers before: conv
    1 of 1 normalization layers fused
    """
    wanted = [names] if isinstance(names, str) else names
    for name in wanted or ():
        if not _normalizes(network[name]):
            raise LRPError(f"layer {name!r} ({type(network[name]).__name__}) is no normalization to fuse")
    fused, entries = network, []
    todo = [n for n in network.nodes if _normalizes(n.layer) and (wanted is None or n.name in wanted)]
    x = probe_inputs(network, probe) if probe and todo else None
    first = last = None if x is None else _outputs(network, x)
    for node in todo:
        entry = Fused(node.name, type(node.layer).__name__, _position(network, node), False)
        try:
            fused, identity, where = _one(fused, node.name)
            entry = dataclasses.replace(entry, done=True, identity=identity, into=where)
        except NotExact as reason:
            if wanted is not None:
                raise NotExact(f"layer {node.name!r} can't be fused exactly: {reason}") from None
            entry = dataclasses.replace(entry, reason=str(reason))
        if entry.done and x is not None:
            now = _outputs(fused, x)
            entry, last = dataclasses.replace(entry, difference=_difference(last, now)), now
        entries.append(entry)
    warnings = (DENSE_WARNING,) if _normalized_dense(network) else ()
    return fused, Report(tuple(entries), None if x is None else _difference(first, last), warnings)


def _normalizes(layer: Layer) -> bool:
    learned = [layer.arrays().get(name) for name in ("gamma", "beta")] if hasattr(layer, "learned") else []
    return isinstance(layer, L.BatchNorm) or any(a is not None for a in learned)


def _one(network: Network, name: str) -> tuple[Network, str, tuple[str, ...]]:
    """The network without one normalization, how that was done and where it went."""
    node = network.node(name)
    layer, rank = node.layer, len(network.shapes[name])
    if isinstance(layer, (L.BatchNorm, L.Affine)):  # Affine: two normalizations in a row, made one
        g, s = (np.broadcast_to(a, _size(network, node)) for a in layer.scale_and_shift())
        axis, left_over = layer.axis % rank, None
        pending = Pending.channels(g, s, axis, rank)
        try:
            changes = into(network, node.inputs[0], name, g, s, axis)
        except NotExact as reason:
            why = str(reason)
        else:
            return _rebuilt(network, changes, name, None), "into the layers before", tuple(changes)
    else:
        pending = Pending(*layer.learned(network.shapes[name]), ((0, 0),) * rank)
        left_over = layer.without_learned()
        why = "its statistics come from the sample"
    try:
        changes, absorbed = _moved_after(network, name, pending)
    except NotExact as reason:
        raise NotExact(f"before: {why}; after: {reason}") from None
    return _rebuilt(network, changes, name, left_over), "into the layers after", absorbed


def _size(network: Network, node: Node) -> int:
    size = network.shapes[node.name][node.layer.axis]
    return len(node.layer.scale_and_shift()[0]) if size is None else size


def _moved_after(network: Network, name: str, start: Pending) -> tuple[dict[str, Layer], tuple[str, ...]]:
    """Move what is pending at a tensor through all that reads it."""
    pending = {name: start}
    changes: dict[str, Layer] = {}
    absorbed = []
    for node in network.nodes:
        given = [pending.get(source) for source in node.inputs]
        if node.name == name or all(p is None for p in given):
            continue
        shapes = [network.shapes[source] for source in node.inputs]
        try:
            changes[node.name], left_over = through(node.layer, given, shapes)
        except NotExact as reason:
            raise NotExact(f"{node.name!r}: {reason}") from None
        if left_over is None:
            absorbed.append(node.name)
        else:
            pending[node.name] = left_over
    for output in network.outputs:
        if output in pending:
            raise NotExact(f"{output!r} is an output, and nothing linear lies between")
    return {k: v for k, v in changes.items() if v is not network[k]}, tuple(absorbed)


def _rebuilt(network: Network, changes: dict[str, Layer], name: str, left_over: Layer | None) -> Network:
    """The network with layers changed, and one replaced by what is left of it or taken out."""
    source = network.node(name).inputs[0]
    keep = name in network.outputs or left_over is not None
    layers = []
    for node in network.nodes:
        layer = changes.get(node.name, node.layer)
        if node.name == name:
            if not keep:
                continue
            layer = left_over or L.Identity()
        reads = node.inputs if keep else tuple(source if n == name else n for n in node.inputs)
        layers.append((node.name, layer.astype(network.dtype), reads))
    return network.rebuilt(layers)


def _position(network: Network, node: Node) -> str:
    def text(name: str) -> str:
        return f"{name} ({type(network[name]).__name__})" if name in network else name

    readers = [text(reader.name) for reader in network.readers(node.name)]
    return f"{text(node.inputs[0])} -> {node.name} -> {', '.join(readers) or 'end'}"


def _normalized_dense(network: Network) -> bool:
    """Whether a batch normalization acts on what dense layers take or give."""
    dense = {node.name for node in network.nodes if isinstance(node.layer, L.Dense)}
    return bool(dense) and any(
        len(network.shapes[node.name]) == 1 or node.inputs[0] in dense
        for node in network.nodes
        if isinstance(node.layer, L.BatchNorm)
    )


def probe_inputs(network: Network, count: int) -> dict[str, np.ndarray]:
    """Random inputs, of the range that the metadata knows; free sizes are 33."""
    rng = np.random.default_rng(0)
    inputs = {}
    for name, shape in network.inputs.items():
        size = (count, *(33 if n is None else n for n in shape))
        low_high = network.metadata.get("input_range")
        if low_high is None:
            inputs[name] = rng.standard_normal(size)
        else:
            low, high = (np.asarray(v, float) for v in low_high)
            view = (-1, *(1,) * (len(shape) - 1)) if low.ndim == 1 else low.shape
            inputs[name] = rng.uniform(low.reshape(view), high.reshape(view), size)
    return inputs


def _outputs(network: Network, x: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs in float64."""
    y = network.astype(np.float64).forward(x)
    return list(y.values()) if isinstance(y, dict) else [y]


def _difference(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return max(float(np.abs(p - q).max()) for p, q in zip(a, b))


_cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def fused_once(network: Network) -> Network:
    """`fuse` without a report, done once for a network that lives on."""
    if network not in _cache:
        fused = network
        if any(_normalizes(node.layer) for node in network.nodes):
            fused = fuse(network, probe=0)[0]
            fused.metadata = network.metadata  # also what is put there later
        _cache[network] = None if fused is network else fused  # itself would keep it alive
    fused = _cache[network]
    return network if fused is None else fused
