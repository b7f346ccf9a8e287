"""Fusing: an equivalent network without normalization layers, and a report of what was done."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import LRPError
from ..network import Network, Node
from ..text import aligned
from .after import move
from .before import into
from .draft import Draft
from .pending import NotExact, Pending, scaled

DENSE_WARNING = """\
This network normalizes after fully connected layers. Guillemot et al. (2020), who introduced fusing
for LRP, advise against explaining networks that combine the two. The fused network is exactly
equivalent, but the normalization's shift becomes a bias of every unit, and a bias absorbs relevance
that no input gets. Look at what is "lost" in these layers before you trust a heatmap, compare it
with another composite, and if you can train again, normalize convolutions only."""


@dataclass(frozen=True)
class Fused:
    """What became of one layer that has a scale and shift: a batch normalization, a bias added, and so on.

    Attributes
    ----------
    name, kind : str
    position : str
        What lies before and after it.
    done : bool
        Whether it is gone.
    identity : str
        How: "into the layers before", "into the layers after", "into the sum".
    into : tuple of str
        The layers that its scale and shift went into.
    reason : str
        Why it stays.
    difference : float or None
        Largest |difference| that fusing this layer made, on probe inputs, where both networks agree again.
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
    """What `fuse` did, one entry for each layer that has a scale and shift."""

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

    Each `Diagonal` layer ``y = g x + s`` (batch normalization, with ``g = gamma / sqrt(variance + eps)``
    and ``s = beta - g mean``; a scale or bias that stands alone; standardized inputs) goes into the linear
    layers before it, or else after it (Guillemot et al. 2020, and the identities at the top of
    `numpylrp.fusion.before` and `numpylrp.fusion.after`). A sum of such layers of one tensor,
    ``BN(x) + x``, is one of them. The learned scale and shift of LayerNorm, GroupNorm, InstanceNorm and
    RMSNorm go into the layers after them; the rest of these depends on the sample and stays. The argument
    is not changed.

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
        if not _normalizes(network, name):
            raise LRPError(f"layer {name!r} ({type(network[name]).__name__}) is no normalization to fuse")
    return _fused(network, scaled_layers(network) if wanted is None else list(wanted), wanted or (), probe)


def _fused(network: Network, todo: list[str], needed: Collection[str], probe: int) -> tuple[Network, Report]:
    """`fuse` for the layers `todo`, of which `needed` must go."""
    draft = Draft(network)
    probes = _Probes(network, probe if todo else 0)
    entries = _sums(draft, todo, probes)
    sums = {name for entry in entries.values() for name in entry.into}
    for name in draft.in_order({*todo, *sums} - set(entries)):
        entry = Fused(name, type(network[name]).__name__, _position(network, network.node(name)), False)
        try:
            entry = replace(entry, done=True, **_one(draft, name, probes))
        except NotExact as reason:
            if name in needed:
                raise NotExact(f"layer {name!r} can't be fused exactly: {reason}") from None
            entry = replace(entry, reason=str(reason))
        entries[name] = entry
    warnings = (DENSE_WARNING,) if _normalized_dense(network) else ()
    fused = draft.finished() if any(entry.done for entry in entries.values()) else network
    ordered = tuple(entries[name] for name in draft.in_order(entries))
    return fused, Report(ordered, probes.difference(fused), warnings)


def _normalizes(network: Network, name: str) -> bool:
    layer: Any = network[name]
    return scaled(layer) and layer.learned(network.shapes[name]) is not None


def scaled_layers(network: Network) -> list[str]:
    """The names of the layers that have a scale and shift to fuse, in order."""
    return [node.name for node in network.nodes if _normalizes(network, node.name)]


def _one(draft: Draft, name: str, probes: _Probes) -> dict[str, Any]:
    """Fuse one layer: how that was done, where it went, and the difference it made."""
    layer: Any = draft.layers[name]
    source = draft.inputs[name][0]
    pending = Pending.of(*layer.learned(draft.shapes[name]))
    left_over = layer.without_learned()
    why: Any = "its statistics come from the sample"
    if left_over is None:
        try:
            moved = into(draft, source, name, pending)
        except NotExact as reason:
            why = reason
        else:
            draft.change(moved.changes)
            difference = probes.agree(draft, moved.passed, {source: name})
            draft.remove(name)
            return {
                "identity": "into the layers before",
                "into": tuple(moved.absorbed),
                "difference": difference,
            }
    try:
        moved = move(draft, name, pending)
    except NotExact as reason:
        raise NotExact(f"before: {why}; after: {reason}") from None
    draft.change({**moved.changes, name: L.Identity() if left_over is None else left_over})
    difference = probes.agree(draft, [name, *moved.passed], {n: n for n in moved.absorbed})
    if left_over is None:
        draft.remove(name)
    return {"identity": "into the layers after", "into": tuple(moved.absorbed), "difference": difference}


def _sums(draft: Draft, names: Iterable[str], probes: _Probes) -> dict[str, Fused]:
    """Make one diagonal layer of each sum of such layers of one tensor: ``BN(x) + x = (g + 1) x + s``."""
    network, allowed = draft.network, set(names)
    entries: dict[str, Fused] = {}
    for node in network.nodes:
        if not isinstance(node.layer, L.Add):
            continue
        branches = [_diagonal_of(draft, source, allowed) for source in draft.inputs[node.name]]
        root, through = branches[0].root, [name for branch in branches for name in branch.through]
        if not through or any(branch.root != root for branch in branches):
            continue
        weights = node.layer._weights(len(branches))
        g = sum(w * branch.g for w, branch in zip(weights, branches))
        s = sum(w * branch.s for w, branch in zip(weights, branches))
        p = Pending.of(*np.broadcast_arrays(g, s)).reduced()
        along = [axis for axis in range(p.rank) if p.varies(axis)]
        if len(along) > 1:
            continue
        draft.change({node.name: L.Affine(p.g.ravel(), p.s.ravel(), along[0] if along else 0)})
        draft.reads(node.name, (root,))
        difference = probes.agree(draft, [node.name], {node.name: node.name})
        for name in through:
            position, kind = _position(network, network.node(name)), type(network[name]).__name__
            entries[name] = Fused(name, kind, position, True, "into the sum", (node.name,), "", difference)
    return entries


@dataclass(frozen=True)
class _Branch:
    """A tensor as ``g root + s``, and the layers between."""

    root: str
    g: np.ndarray
    s: np.ndarray
    through: tuple[str, ...]


def _diagonal_of(draft: Draft, name: str, allowed: Collection[str]) -> _Branch:
    """A tensor as what diagonal layers, which nothing else reads, make of another."""
    g, s, through = np.ones((1,) * (rank := len(draft.shapes[name]))), np.zeros((1,) * rank), []
    while name in allowed and len(draft.readers[name]) == 1 and name not in draft.outputs:
        layer = draft.layers[name]
        if not isinstance(layer, L.Diagonal):
            break
        scale, shift = layer.learned(draft.shapes[name])
        g, s = g * scale, g * shift + s
        through.append(name)
        (name,) = draft.inputs[name]
    return _Branch(name, g, s, tuple(through))


class _Probes:
    """Activations of the draft for random inputs, if there are any, kept up to date as it changes."""

    def __init__(self, network: Network, count: int) -> None:
        self.inputs = probe_inputs(network, count) if count else None
        self.values = {} if self.inputs is None else network.astype(np.float64).record(self.inputs)
        self.outputs = [self.values[name] for name in network.outputs] if self.inputs else []

    def agree(self, draft: Draft, changed: Iterable[str], ends: dict[str, str]) -> float | None:
        """Calculate what changed; the largest difference of the ends from the tensors that they now are."""
        if self.inputs is None:
            return None
        before = {now: self.values[then] for now, then in ends.items()}
        for name in draft.in_order(changed):
            layer = draft.layers[name].astype(np.dtype(np.float64))
            x = [self.values[source] for source in draft.inputs[name]]
            self.values[name] = layer.forward(tuple(x) if layer.merges else x[0])
        return _difference([self.values[name] for name in before], list(before.values()))

    def difference(self, fused: Network) -> float | None:
        """The largest difference of the outputs."""
        return None if self.inputs is None else _difference(_outputs(fused, self.inputs), self.outputs)


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


def fused_once(network: Network, keep: Collection[str] = ()) -> Network:
    """`fuse` without a report, but for the layers to `keep`; done once for a network that lives on."""
    known = _cache.setdefault(network, {})
    key = frozenset(keep)
    if key not in known:
        names = [name for name in scaled_layers(network) if name not in key]
        fused = _fused(network, names, (), 0)[0] if names else network
        fused.metadata = network.metadata  # also what is put there later
        known[key] = None if fused is network else fused  # itself would keep it alive
    fused = known[key]
    return network if fused is None else fused
