"""The candidate's forward pass: its activations, judged layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import layers as L
from ..errors import LRPError
from . import patterns
from .bounds import LEAST, MARGIN, UNITS, forward_errors
from .candidate import Given, given, is_float32
from .hypotheses import Case, Hypothesis
from .verdict import Row, matches
from .worlds import Arrays, Question


def known_activations(question: Question, own: Arrays) -> Arrays:
    """The candidate's activations that have a place in the walked network.

    Where fusing changed what a layer gives, the output of the normalization that it took up is its own.
    """
    if question.normalization != "fused":
        return own
    plain, world = question.network.record(question.x), question.world()
    found = {}
    for node in world.network.nodes:
        name = node.name
        same = name in plain and np.allclose(plain[name], world.values[name], rtol=1e-9, atol=1e-12)
        if name in own and same:
            found[name] = own[name]
            source = node.inputs[0]
            removed = isinstance(node.layer, L.Identity) and not isinstance(
                question.network[name], L.Identity
            )
            if removed and source in world.network and len(world.network.readers(source)) == 1:
                found[source] = own[name]
    return found


def forward_rows(
    question: Question, own: Mapping[str, Any], tolerance: float | None
) -> tuple[list[Row], dict[str, str], Arrays]:
    """A row for each activation, what could not be used, and those that can stand for ours.

    Where normalization is fused, activations may be those of the fused network or of the one that was given:
    of whichever more of them agree with.
    """
    if not own:
        return [], {}, {}
    found = given(own, {k: value.shape for k, value in question.network.record(question.x).items()}, "layer")
    plain = _Forward(replace(question, normalization="linear"), found, tolerance)
    fused = question.normalization == "fused" and _Forward(question, found, tolerance)
    judged = fused if fused and fused.agreeing > plain.agreeing else plain
    judged.explain([row for row in judged.rows if not row.agrees])
    problems = {f"activations/{name}": text for name, text in found.problems.items()}
    return judged.rows, problems, judged.own if fused is judged else known_activations(question, judged.own)


class _Forward:
    """Activations against what the layers before make of the candidate's own."""

    def __init__(self, question: Question, found: Given, tolerance: float | None) -> None:
        self.case = Case(question, question.world())
        self.network, self.found, self.tolerance = self.case.world.network, found, tolerance
        self.own = found.whole({name: value.shape for name, value in self.case.world.values.items()})
        self.expected = self.predicted(self.network, question.x)
        self.rows = [self.row(node.name) for node in self.network.nodes if node.name in self.own]
        self.agreeing = sum(row.agrees for row in self.rows)

    def predicted(self, network: Any, x: Arrays) -> Arrays:
        """What each layer makes of its inputs, the candidate's where it brought them."""
        values: Arrays = dict(x)
        found: Arrays = dict(x)
        for node in network.nodes:
            x = tuple(values[name] for name in node.inputs)  # type: ignore[assignment]
            found[node.name] = node.layer.forward(x if node.layer.merges else x[0])  # type: ignore[index]
            own = self.own.get(node.name)
            fits = own is not None and own.shape == found[node.name].shape
            values[node.name] = own if fits else found[node.name]  # type: ignore[assignment]
        return found

    def allowed(self, name: str, ours: Arrays, network: Any) -> np.ndarray:
        """What rounding may change."""
        y, unit = ours[name], self.found.units[name]
        unit = max(unit, UNITS["float32"]) if is_float32(self.own[name]) else unit
        if self.tolerance is not None:
            return np.full_like(y, self.tolerance * patterns.size(y))
        known = [other for other in self.own if other != name and other in network]
        values = {k: self.own[k] if k in known else value for k, value in ours.items()}
        node = network.node(name)
        sources = self._before(network, node.inputs, known)
        errors = forward_errors(
            network, values, unit, [k for k in network.shapes if k not in sources and k != name]
        )
        return np.maximum(MARGIN * errors[name] + 4 * unit * np.abs(y), LEAST * unit * patterns.size(y))

    @staticmethod
    def _before(network: Any, names: tuple, known: list) -> set[str]:
        """The values between a layer and what is known before it."""
        found, left = set(), list(names)
        while left:
            name = left.pop()
            if name in network and name not in known and name not in found:
                found.add(name)
                left += network.node(name).inputs
        return found

    def row(self, name: str) -> Row:
        node = self.network.node(name)
        row = Row(name, type(node.layer).__name__, node.inputs, "", "activation")
        theirs, ours = self.own[name], self.expected[name]
        row.maximum, row.l2, row.cosine = patterns.norms(theirs, ours)
        allowed = self.allowed(name, self.expected, self.network)
        row.bound = float(allowed.max()) / patterns.size(ours)
        row.agrees = bool((np.abs(theirs - ours) <= allowed).all())
        return row

    # ------------------------------------------------------------ causes

    def explain(self, rows: list[Row]) -> None:
        if not rows:
            return
        from .wrong_forward import FORWARD, inputs

        fits: dict[str, list[tuple[str, float]]] = {row.name: [] for row in rows}
        tried = [h for h in (*FORWARD, *inputs(self.case)) if h.everywhere]
        for hypothesis in tried:
            self.attempt(hypothesis, None, "", rows, fits)
        for row in rows:
            if not fits[row.name]:
                for hypothesis in (h for h in tried if h.scoped):
                    self.attempt(hypothesis, self.taken_up(row.name), "", [row], fits)
            found = list(self.patterns(row)) if not fits[row.name] else []
            if fits[row.name]:
                row.fits = tuple(dict.fromkeys(name for name, _ in fits[row.name]))
                row.text = matches(row.fits, min(error for _, error in fits[row.name]))
            elif found:
                row.fits = tuple(found)
                row.text = found[0]
            else:
                wrong = np.abs(self.own[row.name] - self.expected[row.name]) > row.bound * patterns.size(
                    self.expected[row.name]
                )
                row.text = f"differs from what its layer gives on {100 * wrong.mean():.3g} % of its values"

    def taken_up(self, name: str) -> set[str]:
        """A layer and the normalizations that it took up."""
        names = {name}
        for node in self.network.nodes:
            own = self.case.question.network[node.name]
            if node.inputs[0] in names and isinstance(node.layer, L.Identity) and type(own) is not L.Identity:
                names.add(node.name)
        return names

    def attempt(
        self, hypothesis: Hypothesis, names: Any, text: str, rows: list[Row], fits: dict[str, list]
    ) -> None:
        try:
            world = hypothesis.make(self.case, names)
            if world is None:
                return
            x = {name: world.values[name] for name in world.network.inputs}
            ours = self.predicted(world.network, x)
        except (LRPError, ValueError, IndexError):
            return
        for row in rows:
            if row.name not in ours or ours[row.name].shape != self.own[row.name].shape:
                continue
            theirs, value = self.own[row.name], ours[row.name]
            error = patterns.distance(theirs, value)
            if not np.isfinite(error) or error > 0.1 * row.maximum:
                continue
            if (np.abs(theirs - value) <= self.allowed(row.name, ours, world.network)).all():
                fits[row.name].append((hypothesis.name.removesuffix(" (in the forward pass too)"), error))

    def patterns(self, row: Row) -> Iterator[str]:
        """What else an activation may be: another value's, dropped units, another order."""
        name, theirs, ours = row.name, self.own[row.name], self.expected[row.name]
        near = max(4 * row.bound, 1e-12)
        for source in self.network.node(name).inputs:
            before = self.own.get(source, self.expected[source])
            if before.shape == theirs.shape and patterns.distance(theirs, before) <= near:
                taken = "pre-activation taken for activation"
                why = taken if self._activates(name) else "the layer is left out"
                yield f"is the value before it, {source!r}: {why}"
        for reader in self.network.readers(name):
            after = reader.layer.forward(ours) if not reader.layer.merges else None
            if after is not None and after.shape == theirs.shape and patterns.distance(theirs, after) <= near:
                yield f"is the value after {reader.name!r}: activation taken for pre-activation"
        yield from self.dropped(theirs, ours, near)
        for text, other in patterns.moved(ours):
            if other.shape == theirs.shape and patterns.distance(theirs, other) <= near:
                yield f"has the right values in another order: {text}"
        k = float((theirs * ours).sum() / max(np.square(ours).sum(), 1e-300))
        if patterns.distance(theirs, k * ours) <= near:
            yield f"is {k:.6g} times what its layer gives"

    def _activates(self, name: str) -> bool:
        return self.network[name].family == "activation"

    @staticmethod
    def dropped(theirs: np.ndarray, ours: np.ndarray, near: float) -> Iterator[str]:
        """Whether some units are 0 and the others grew: dropout that is active."""
        gone = (theirs == 0) & (ours != 0)
        kept = (theirs != 0) & (ours != 0)
        if not gone.any() or not kept.any():
            return
        k = float((theirs[kept] * ours[kept]).sum() / np.square(ours[kept]).sum())
        if patterns.distance(theirs[kept], k * ours[kept]) <= near and k >= 1 - near:
            part = gone.sum() / (gone | kept).sum()
            yield f"has {100 * part:.3g} % of its units dropped and the others times {k:.6g}: active dropout"
