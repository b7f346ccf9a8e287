"""The walk forward and back through a network, and what comes of it: an Explanation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from . import seed as seeds
from .batches import in_batches, rows_of, samples_at_a_time, stacked
from .clrp import contrast
from .errors import LRPError, lookup
from .fast import path_of
from .fast.plans import each_walk, needed, settled
from .fast.threads import each, one_blas_thread
from .network import Network
from .planning import check_sent, checked_range, class_names, planned
from .pruning import Prune
from .rules import Rule
from .text import explanation_text, flow_table
from .wiring import Node


@dataclass
class Step:
    """What one layer did with relevance.

    Attributes
    ----------
    name, kind, rule : str
        The layer, its kind, and its rule or what it does instead.
    shape : tuple
        Sample shape of the layer's output.
    received, sent : (N,) array
        Sums of the relevance of its output and of what it gave to its inputs.
    arrays : dict
        With ``trace``: x, y, R, R_x and what the rule calculated (z, s, c; followed by a mark where
        a rule makes several shares, ``z+``, and by a prime where a share has several products, ``c'``).
    """

    name: str
    kind: str
    rule: str
    shape: tuple[int, ...]
    received: np.ndarray
    sent: np.ndarray
    arrays: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name not in self.arrays:
            known = ", ".join(self.arrays) or "nothing: explain it with trace=True"
            raise LRPError(f"layer {self.name!r} has no {name!r} in its trace; it has {known}")
        return self.arrays[name]


@dataclass
class Explanation:
    """Relevance of the input, and where it came from.

    Attributes
    ----------
    relevance : (N, *input) array, or dict of them by input name
        With several classes, one more axis in front: (classes, N, *input).
    output : (N, *output) array
        What was explained: the logits.
    target : (N,) int array
        The class explained of each sample; (classes, N) with several classes.
    seed : array
        The relevance that the walk started from.
    steps : dict of Step
        One for each input and layer, by name, in the order of the forward pass.
    """

    relevance: Any
    output: np.ndarray
    target: np.ndarray
    seed: np.ndarray
    steps: dict[str, Step]
    class_names: list[str] | None = None

    @property
    def prediction(self) -> np.ndarray:
        """The class with the largest output, of each sample (`numpylrp.seed.predicted`)."""
        return seeds.predicted(self.output)

    def __getitem__(self, name: str) -> Step:
        return lookup(self.steps, name, "layer of this explanation")

    def label(self, target: int) -> str:
        """The name of a class."""
        return self.class_names[target] if self.class_names else str(target)

    def table(self, sample: int | None = None) -> str:
        """Each layer's relevance, from the output back, for one sample or as the mean of all.

        "lost" is the part that a layer did not send on: absorbed or dropped; negative: created.
        """
        return flow_table(self.steps, sample)

    __str__ = __repr__ = explanation_text


def explain(
    network: Network,
    x: Any,
    target: Any = None,
    *,
    classes: Iterable[Any] | None = None,
    composite: Any = "epsilon-plus",
    normalization: str = "fused",
    seed: Any = "logit",
    output: str | None = None,
    masks: Mapping[str, Any] | None = None,
    prune: Prune | None = None,
    trace: bool | Iterable[str] = False,
    batch_size: int | None = None,
    watch: Callable | None = None,
    fast: bool = True,
    **options: Any,
) -> Explanation:
    """Explain what `network` says of the samples `x`.

    Parameters
    ----------
    network : Network
    x : (N, *input_shape) array, or mapping of input name to array
    target : None, int, str, or a sequence of N of them
        The class to explain, by index or label; by default the one with the largest output.
    classes : sequence of int or str, optional
        Several classes of every sample at once, from one forward pass, instead of `target`.
    composite : str, Rule or Composite
        Which layer gets which rule: a name in `numpylrp.composite.PRESETS`, one rule, or your own.
    normalization : str
        What becomes of batch normalization: "fused" with the linear layers beside it where that is
        exact (see `numpylrp.fuse`; the steps are those of the fused network), "linear" (a layer under
        the composite's rule), "identity" (relevance passes unchanged) or "abs-z" (`numpylrp.rules.AbsZ`).
    seed : str, array, or function of (output, target)
        The relevance to start from: "logit", "one-hot", "all", "softmax-gradient", "clrp1",
        "clrp2", an array of the output's shape (or of one sample's), or a function such as
        ``numpylrp.seed.margin(3)``. For "clrp1" and "clrp2" relevance is the positive part of the
        difference between the target and its dual (Gu et al. 2018); steps of "clrp2" are the target's.
    output : str, optional
        The output to explain, of a network with several; by default the first. A softmax or
        sigmoid at the end is left out: the walk starts from the logits. Or any layer, for which `target`
        is a channel or unit, and ``numpylrp.seed.unit(c, i, j)`` a seed for a single value.
    masks, prune
        What of hidden relevance goes on: `numpylrp.conditional.masked`, `numpylrp.pruning.Prune`.
    trace : bool or names of layers
        Keep the arrays of every step of all layers, or of these; calculated with ``fast=False``.
    batch_size : int, optional
        Samples at a time; by default as many as `numpylrp.batches.MEMORY` allows.
    watch : function of (node, rule, x, y, R, R_x), optional
        Called for every layer on the way back, batch by batch.
    fast : bool
        False: every layer and rule as its definition is written, bit for bit the same for every
        batch size and number of threads; `numpylrp.fast` says what can differ otherwise.
    **options
        What the composite's preset leaves open: ``low`` and ``high``, the bounds of the input for the
        z^B rule (by default the model's input_range), ``gamma``, ``epsilon``.

    Returns
    -------
    Explanation

    Raises
    ------
    LRPError
        What is not valid, and NaN, with the layer it first appears in.

    Examples
    --------
    >>> from numpylrp.layers import Dense, ReLU
    >>> fc1, fc2 = Dense([[1.0, 1.0], [1.0, -1.0]]), Dense([[2.0, 0.0], [1.0, 1.0]], [1.0, 0.0])
    >>> net = Network([("fc1", fc1), ("relu", ReLU()), ("fc2", fc2)], input_shape=(2,))
    >>> print(explain(net, [[1.0, 2.0]], composite="epsilon"))
    1 sample, class 0
    layer  kind   rule            output    relevance        lost
    fc2    Dense  Epsilon(1e-06)  2                 7      14.29%
    relu   ReLU   (unchanged)     2                 6          0
    fc1    Dense  Epsilon(1e-06)  2                 6       0.00%
    input  Input                  2                 6
    """
    network, rules = settled(network, composite, normalization, options)
    batch = checked_range(network, network.batch(x))
    total = len(next(iter(batch.values())))
    network, top, traced = planned(network, output, seed, masks, trace)
    fast = fast and not traced

    def part(rows: slice) -> Explanation:
        walk = Walk(network, rules, {name: value[rows] for name, value in batch.items()}, traced, watch, fast)
        start = seeds.seed_of(seed, rows, total, 1 + len(network.shapes[top]))
        walked = walk.explain if prune is None else partial(prune.walk, walk)
        if classes is None:
            return walked(top, rows_of(target, rows, total), start)
        return stacked([walked(top, one, start) for one in classes])

    size = total if traced else samples_at_a_time(batch_size, total, lambda: needed(network, batch, rules))
    with one_blas_thread():
        if fast and watch is None:  # who watches sees the batches in order
            return in_batches(part, total, each_walk(network, batch, min(size, total)), each)
        return in_batches(part, total, size)


class Walk:
    """A batch's way forward through a network, and relevance on its way back, layer by layer.

    The one place that asks layers for outputs and relevance. It asks a path: `numpylrp.fast` answers in
    its own way, or, where `fast` is False, passes the question on to the layer.
    """

    def __init__(
        self,
        network: Network,
        rules: Mapping[str, Rule],
        batch: Mapping[str, np.ndarray],
        traced: Collection[str] = (),
        watch: Callable | None = None,
        fast: bool = True,
    ) -> None:
        self.network, self.rules, self.traced, self.watch = network, rules, traced, watch
        self.path = path_of(rules, fast)
        self.values = network.activations(batch, self.path.forward)

    def explain(self, top: str, target: Any, seed: Any) -> Explanation:
        """The explanation of one target of each sample, from the output of the layer `top`."""
        output, names = self.values[top], class_names(self.network, top)
        target = seeds.targets(target, output, names)
        R = seeds.start(seed, output, target)
        relevance, steps = self.back({top: R})
        if isinstance(seed, str) and seed in ("clrp1", "clrp2"):
            relevance = contrast(self, top, seed, R, relevance)
        found = relevance if len(relevance) > 1 else relevance[next(iter(relevance))]
        return Explanation(found, output, target, R, steps, names)

    def back(self, start: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Step]]:
        """Relevance of the inputs, and the steps, for relevance of some values in the network."""
        arrived = {name: (R, _sums(R)) for name, R in start.items()}
        steps: dict[str, Step] = {}
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for node in reversed(self.network.nodes):
                if node.name in arrived:  # else nothing that is explained depends on it
                    steps[node.name] = self.step(node, arrived)
        for name in self.network.inputs:
            if name not in arrived:
                arrived[name] = (zero := np.zeros_like(self.values[name])), _sums(zero)
            R, total = arrived[name]
            steps[name] = Step(name, "Input", "", R.shape[1:], total, total)
        check_sent(steps.values())
        return {name: arrived[name][0] for name in self.network.inputs}, dict(reversed(steps.items()))

    def step(self, node: Node, arrived: dict[str, tuple[np.ndarray, np.ndarray]]) -> Step:
        """Take the relevance of one layer's output, with its sums, and add what it sends to its inputs'."""
        name, layer, rule = node.name, node.layer, self.rules.get(node.name)
        (R, received), y = arrived.pop(name), self.values[name]
        inputs = [self.values[source] for source in node.inputs]
        x = tuple(inputs) if layer.merges else inputs[0]
        arrays: dict[str, Any] = {}
        try:
            R_x = self.path.relprop(node, R, x, y, rule, arrays.update if name in self.traced else None)
        except LRPError as error:
            raise type(error)(f"layer {name!r} ({type(layer).__name__}): {error}") from None
        if self.watch is not None:
            self.watch(node, rule, x, y, R, R_x)
        total: Any = 0.0
        for source, piece in zip(node.inputs, R_x if layer.merges else (R_x,)):
            sent = received if piece is R else _sums(piece)
            total = total + sent
            if source in arrived:  # by another way
                piece, sent = arrived[source][0] + piece, arrived[source][1] + sent
            arrived[source] = piece, sent
        if name in self.traced:
            arrays = dict(x=x, y=y, R=R, R_x=R_x, **arrays)
        what = f"({layer.way_back})" if rule is None else str(rule)
        return Step(name, type(layer).__name__, what, y.shape[1:], received, total, arrays)


def _sums(R: np.ndarray) -> np.ndarray:
    return np.add.reduce(R.reshape(len(R), -1), axis=1)
