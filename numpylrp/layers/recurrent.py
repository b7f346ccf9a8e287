"""Recurrent layers: LSTM, GRU and the simple recurrent layer, unrolled over time for relevance.

A sample is (T, D): T steps of D values. At each step the layer's sums are shared by a rule of linear
layers, and each product of a gate and its signal by a rule of products: signals take all unless a
`numpylrp.nonlinear.Gated` says otherwise (Arras et al. 2017). Activations pass relevance on. What the walk
through time comes by is in the trace: gates, states and their relevance, each (N, T, H).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from scipy import special  # type: ignore

from ..errors import LRPError, ShapeError
from ..nonlinear import Gated, Inner, SignalTakesAll
from .base import Ruled, Shape, parameter
from .dense import Dense
from .merge import Add

FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid_keras2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
}
"""What `activation` and `gate` of a recurrent layer may be."""

_SUM = Add()

State = tuple[np.ndarray, ...]


class _Walk:
    """How one walk back through time shares relevance; it keeps its linear steps."""

    def __init__(self, rule: Any, visit: Callable[[Inner], None] | None = None) -> None:
        gated = isinstance(rule, Gated)
        self.sums = rule.sums if gated else rule
        self.products = rule.products if gated else SignalTakesAll()
        self.gates = not isinstance(self.products, SignalTakesAll)
        self.visit = visit

    def linear(self, layer: Any, R: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if self.visit:
            self.visit(Inner(self.sums, layer, R, x, y))
        return self.sums.propagate(layer, R, x, y)

    def sum(self, R: np.ndarray, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> State:
        shares = self.linear(_SUM, R, np.stack([a, b], 1), y)
        return shares[:, 0], shares[:, 1]

    def product(self, R: np.ndarray, gate: np.ndarray, signal: np.ndarray) -> State:
        return self.products.split(R, (gate, signal), 1)


class _Weighted:
    """A dense layer with weights (N, J, I) and a bias (N, J) of each sample's own."""

    merges = False
    family = "dense"

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None) -> None:
        self.weight, self.bias = weight, bias

    def parameters(self, shape: Any) -> tuple[np.ndarray, np.ndarray | None]:
        return self.weight, self.bias

    def linear(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        y = (weight @ x[..., None])[..., 0]
        return y if bias is None else y + bias

    def adjoint(self, s: np.ndarray, weight: np.ndarray, shape: Any) -> np.ndarray:
        return (s[:, None] @ weight)[:, 0]


@dataclass(frozen=True, eq=False, repr=False)
class Recurrent(Ruled):
    """What recurrent layers share: inputs, states, masks, and the walk through time.

    Parameters
    ----------
    weight : (G H, D) array
        Weights of the input, one block of H rows for each gate.
    recurrent : (G H, H) array
        Weights of the state.
    bias : (G H,) array, optional
    initial_h : (H,) array, optional
        The state before the first step, 0 by default. Its relevance goes nowhere; the audit counts it.
    all_states : bool
        True: the output is (T, H), the state after each step; False: (H,), the last.
    reverse : bool
        Begin with the last step; states stand where their input stands.
    reads : tuple of str
        What the layer's inputs are: "x" first, then any of "mask" ((T,), 0 for a step that is skipped: the
        state stays, and the step's input gets relevance 0), "h" and "c" ((H,), initial states that come
        from elsewhere).
    activation, gate : str
        Names in `FUNCTIONS`.
    """

    weight: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray | None = None
    initial_h: np.ndarray | None = None
    all_states: bool = True
    reverse: bool = False
    reads: tuple[str, ...] = ("x",)
    activation: str = "tanh"

    family: ClassVar[str] = "recurrent"
    way_back: ClassVar[str] = "by rule, step by step"
    own_rules: ClassVar[tuple[type, ...]] = (Gated,)
    blocks: ClassVar[int] = 1
    states: ClassVar[tuple[str, ...]] = ("h",)

    def __post_init__(self) -> None:
        kind = type(self).__name__
        parameter(self, "weight", 2)
        parameter(self, "recurrent", 2)
        parameter(self, "bias", 1, optional=True)
        rows, units = self.recurrent.shape
        if rows != self.blocks * units or len(self.weight) != rows or not units:
            raise ShapeError(
                f"{kind}: weight must be ({self.blocks} H, D) and recurrent ({self.blocks} H, H), "
                f"not {self.weight.shape} and {self.recurrent.shape}"
            )
        for name, size in self._vectors(units).items():
            parameter(self, name, 1, optional=True)
            value = getattr(self, name)
            if value is not None and len(value) != size:
                raise ShapeError(f"{kind}: {name} must have {size} values, not {len(value)}")
        object.__setattr__(self, "reads", tuple(self.reads))
        known = ("x", "mask", *self.states)
        if self.reads[:1] != ("x",) or len(set(self.reads)) < len(self.reads) or set(self.reads) - set(known):
            raise LRPError(f"{kind}: reads must be 'x' and then any of {known[1:]}, not {self.reads}")
        for name in self._functions():
            if getattr(self, name) not in FUNCTIONS:
                known = ", ".join(FUNCTIONS)  # type: ignore[assignment]
                raise LRPError(f"{kind}: {name} must be one of {known}, not {getattr(self, name)!r}")

    def _vectors(self, units: int) -> dict[str, int]:
        return {"bias": self.blocks * units, **{f"initial_{name}": units for name in self.states}}

    def _functions(self) -> tuple[str, ...]:
        return ("activation",)

    @property
    def merges(self) -> bool:  # type: ignore[override]
        return len(self.reads) > 1

    @property
    def units(self) -> int:
        """H, the size of the state."""
        return self.recurrent.shape[1]

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes) != len(self.reads):
            raise ShapeError(f"reads {', '.join(self.reads)}, but got {len(shapes)} inputs")
        x = shapes[0]
        if len(x) != 2 or x[1] != self.weight.shape[1]:
            raise ShapeError(f"takes samples (T, {self.weight.shape[1]}), but the input has shape {x}")
        if x[0] == 0:
            raise ShapeError(f"takes at least one step, but the input has shape {x}")
        for name, shape in zip(self.reads[1:], shapes[1:]):
            want = x[:1] if name == "mask" else (self.units,)
            if len(shape) != 1 or (None not in (*shape, *want) and shape != want):
                raise ShapeError(f"{name} must have shape {want}, not {shape}")
        return (x[0], self.units) if self.all_states else (self.units,)

    # ---------------------------------------------------------------- forward

    def _given(self, x: Any) -> dict[str, np.ndarray]:
        """Inputs by name, initial states included."""
        given = dict(zip(self.reads, x if self.merges else (x,)))
        shape, dtype = (len(given["x"]), self.units), np.result_type(given["x"], self.recurrent)
        for name in self.states:
            own = getattr(self, f"initial_{name}")
            given.setdefault(name, np.zeros(shape, dtype) if own is None else np.broadcast_to(own, shape))
        return given

    def _order(self, length: int) -> range:
        return range(length)[::-1] if self.reverse else range(length)

    def _run(self, given: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """What each step computes, by its place in time."""
        x, mask = given["x"], given.get("mask")
        ahead = _product(x, self.weight)
        state = tuple(given[name] for name in self.states)
        steps: list[dict[str, Any]] = [{} for _ in range(x.shape[1])]
        for t in self._order(x.shape[1]):
            step = self._step(ahead[:, t], *state)
            step["before"], step["new"] = state, step[self.states[-1]]
            if mask is not None:
                for name, old in zip(self.states, state):
                    step[name] = np.where(mask[:, t, None] != 0, step[name], old)
            state = tuple(step[name] for name in self.states)
            steps[t] = step
        return steps

    def _step(self, ahead: np.ndarray, *state: np.ndarray) -> dict[str, Any]:
        """Gates and states of a step, from the input's part of the pre-activations and the states before."""
        raise NotImplementedError

    def forward(self, x: Any) -> np.ndarray:
        steps = self._run(self._given(x))
        if self.all_states:
            return np.stack([step["h"] for step in steps], 1)
        return steps[self._order(len(steps))[-1]]["h"]

    # ---------------------------------------------------------------- back

    def _back(
        self, x: np.ndarray, step: Mapping[str, Any], R: State, walk: _Walk
    ) -> tuple[np.ndarray, State, dict[str, np.ndarray]]:
        """Relevance of a step's input and of the states before it, and what else the trace shows."""
        raise NotImplementedError

    def unrolled(
        self, R: np.ndarray, x: Any, rule: Any, visit: Callable[[Inner], None] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Relevance of all inputs and initial states by name, and the trace: arrays (N, T, H) by name."""
        given, walk = self._given(x), _Walk(rule, visit)
        steps, mask, values = self._run(given), given.get("mask"), given["x"]
        order = self._order(values.shape[1])
        R_state = tuple(np.zeros_like(given[name]) for name in self.states)
        R_x = np.zeros(values.shape, np.result_type(R, values))
        shown: list[dict[str, np.ndarray]] = [{} for _ in steps]
        for t in reversed(order):
            if self.all_states or t == order[-1]:
                R_state = (R_state[0] + (R[:, t] if self.all_states else R), *R_state[1:])
            own = 1.0 if mask is None else (mask[:, t, None] != 0).astype(R.dtype)
            R_own = tuple(part * own for part in R_state)
            R_x[:, t], R_before, arrays = self._back(values[:, t], steps[t], R_own, walk)
            arrays.update({f"R_{name}": part for name, part in zip(self.states, R_state)})
            R_state = tuple(a + b * (1 - own) for a, b in zip(R_before, R_state))
            shown[t] = {**{k: v for k, v in steps[t].items() if k not in ("before", "new")}, **arrays}
        found = {"x": R_x, **dict(zip(self.states, R_state))}
        if mask is not None:
            found["mask"] = np.zeros_like(mask)
        trace = {name: np.stack([step[name] for step in shown], 1) for name in shown[0]}
        return found, {**trace, **{f"R_{name}_0": found[name] for name in self.states}}

    def inner(self, R: np.ndarray, x: Any, y: np.ndarray, rule: Any) -> tuple[list[Inner], np.ndarray]:
        """The linear steps of a walk, and the relevance of initial states that are no inputs, (N,)."""
        steps: list[Inner] = []
        found, _ = self.unrolled(R, x, rule, steps.append)
        kept = [found[name].sum(1) for name in self.states if name not in self.reads]
        return steps, sum(kept, np.zeros(len(R)))

    def relprop(self, R, x, y, rule=None, note=None):
        found, trace = self.unrolled(R, x, rule)
        if note:
            note(**trace)
        return tuple(found[name] for name in self.reads) if self.merges else found["x"]

    def _rows(self, first: int, last: int) -> slice:
        """The rows of some gates' weights."""
        return slice(first * self.units, last * self.units)

    def _dense(self, rows: slice) -> Dense:
        """Some gates' pre-activations, of the step's input and the state before, side by side."""
        both = np.concatenate([self.weight[rows], self.recurrent[rows]], 1)
        return Dense(both, self._biases(rows))

    def _biases(self, rows: slice) -> np.ndarray | None:
        return None if self.bias is None else self.bias[rows]

    def _plus(self, z: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        return z if bias is None else z + bias


def _product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``weight @ x`` on the last axis, one product for each sample."""
    return (x.reshape(len(x), -1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], len(weight))


@dataclass(frozen=True, eq=False, repr=False)
class SimpleRNN(Recurrent):
    """``h_t = tanh(W x_t + U h_{t-1} + b)`` (Elman 1990).

    Parameters are those of `Recurrent` with one block: ``weight`` is W, ``recurrent`` is U.

    Examples
    --------
    >>> layer = SimpleRNN([[1.0]], [[0.5]], activation="linear")
    >>> layer.forward(np.array([[[1.0], [2.0]]]))
    array([[[1. ],
            [2.5]]])
    """

    def _step(self, ahead, h):
        z = self._plus(ahead + _product(h, self.recurrent), self.bias)
        return {"z": z, "h": FUNCTIONS[self.activation](z)}

    @cached_property
    def _all(self) -> Dense:
        return self._dense(slice(None))

    def _back(self, x, step, R, walk):
        both = np.concatenate([x, step["before"][0]], 1)
        R_in = walk.linear(self._all, R[0], both, step["z"])
        return R_in[:, : x.shape[1]], (R_in[:, x.shape[1] :],), {}


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), gates in the order i, f, g, o as in PyTorch.

    ``[i, f, g, o] = [s, s, tanh, s](W x_t + U h_{t-1} + b)``, ``c_t = f c_{t-1} + i g``,
    ``h_t = o tanh(c_t)`` with s the sigmoid. Keras has the order i, f, c, o, ONNX i, o, f, c.

    Relevance (Arras et al. 2017): R_c,t gains R_h,t; ``R_c,t-1 = f c_{t-1} / stab(c_t) R_c,t``;
    ``R_g = i g / stab(c_t) R_c,t``; x_t and h_{t-1} get the epsilon rule's shares of R_g.

    Parameters are those of `Recurrent` with four blocks, and `initial_c`, as `initial_h`.

    Examples
    --------
    >>> layer = LSTM(np.zeros((4, 1)), np.zeros((4, 1)), np.array([100.0, 100.0, 100.0, 100.0]))
    >>> layer.forward(np.zeros((1, 2, 1))).round(3)  # tanh(1), tanh(2)
    array([[[0.762],
            [0.964]]])
    """

    gate: str = "sigmoid"
    initial_c: np.ndarray | None = None

    blocks: ClassVar[int] = 4
    states: ClassVar[tuple[str, ...]] = ("h", "c")

    def _functions(self):
        return ("activation", "gate")

    def _step(self, ahead, h, c):
        z = self._plus(ahead + _product(h, self.recurrent), self.bias)
        gate, activation = FUNCTIONS[self.gate], FUNCTIONS[self.activation]
        z_i, z_f, z_g, z_o = np.split(z, 4, 1)
        i, f, g, o = gate(z_i), gate(z_f), activation(z_g), gate(z_o)
        new = f * c + i * g
        out = activation(new)
        return {"z": z, "i": i, "f": f, "g": g, "o": o, "tanh": out, "c": new, "h": o * out}

    @cached_property
    def _all(self) -> Dense:
        return self._dense(slice(None))

    @cached_property
    def _candidate(self) -> Dense:
        return self._dense(self._rows(2, 3))

    def _back(self, x, step, R, walk):
        (h, c), (R_h, R_c) = step["before"], R
        i, f, g, o = (step[name] for name in "ifgo")
        R_o, R_out = walk.product(R_h, o, step["tanh"])
        R_old, R_new = walk.sum(R_c + R_out, f * c, i * g, step["new"])
        R_f, R_before = walk.product(R_old, f, c)
        R_i, R_g = walk.product(R_new, i, g)
        both = np.concatenate([x, h], 1)
        if walk.gates:
            R_in = walk.linear(self._all, np.concatenate([R_i, R_f, R_g, R_o], 1), both, step["z"])
        else:
            R_in = walk.linear(self._candidate, R_g, both, step["z"][:, self._rows(2, 3)])
        shown = {"R_i": R_i, "R_f": R_f, "R_g": R_g, "R_o": R_o}
        return R_in[:, : x.shape[1]], (R_in[:, x.shape[1] :], R_before), shown


@dataclass(frozen=True, eq=False, repr=False)
class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014), blocks in the order r, z, n as in PyTorch.

    ``[r, z] = s(W x_t + b + U h_{t-1} + c)``, ``h_t = (1 - z) n + z h_{t-1}``, and n in two forms:
    ``tanh(W x_t + b + r (U h_{t-1} + c))`` where `reset_after` (PyTorch; Keras' and ONNX' option), else
    ``tanh(W x_t + b + U (r h_{t-1}) + c)``. Keras and ONNX have the order z, r, h.

    Relevance: ``R_n = (1 - z) n / stab(h_t) R_h`` and ``R_h,t-1 = z h_{t-1} / stab(h_t) R_h``, and R_n by the
    sums' rule over x_t and h_{t-1} with weights W and r U. Where gates take relevance and `reset_after`, R_n
    goes to the two terms W x + b and r (U h + c) first, and from each on.

    Parameters are those of `Recurrent` with three blocks, and `recurrent_bias`, c above.

    Examples
    --------
    >>> layer = GRU(np.zeros((3, 1)), np.zeros((3, 1)), np.array([0.0, 0.0, 100.0]))
    >>> layer.forward(np.zeros((1, 2, 1)))  # halfway to 1, and again
    array([[[0.5 ],
            [0.75]]])
    """

    gate: str = "sigmoid"
    recurrent_bias: np.ndarray | None = None
    reset_after: bool = True

    blocks: ClassVar[int] = 3

    def _functions(self):
        return ("activation", "gate")

    def _vectors(self, units):
        return {**super()._vectors(units), "recurrent_bias": 3 * units}

    def _biases(self, rows):
        both = [b[rows] for b in (self.bias, self.recurrent_bias) if b is not None]
        return sum(both[1:], both[0]) if both else None

    def _step(self, ahead, h):
        last, gate = self._rows(2, 3), FUNCTIONS[self.gate]
        gates = self._rows(0, 2)
        z_rz = ahead[:, gates] + _product(h, self.recurrent[gates])
        r, z = np.split(gate(self._plus(z_rz, self._biases(gates))), 2, 1)
        b, c = (None if v is None else v[last] for v in (self.bias, self.recurrent_bias))
        if self.reset_after:
            old = self._plus(_product(h, self.recurrent[last]), c)
            new = self._plus(ahead[:, last], b)
            a = new + r * old
        else:
            a = self._plus(ahead[:, last] + _product(r * h, self.recurrent[last]), self._biases(last))
            new = old = a
        n = FUNCTIONS[self.activation](a)
        return {"r": r, "z": z, "n": n, "a": a, "a_x": new, "a_h": old, "h": (1 - z) * n + z * h}

    @cached_property
    def _gates(self) -> Dense:
        return self._dense(self._rows(0, 2))

    @cached_property
    def _candidate(self) -> Dense:
        return self._dense(self._rows(2, 3))

    @cached_property
    def _parts(self) -> tuple[Dense, Dense]:
        """The two terms of the candidate: of x and of h."""
        last = self._rows(2, 3)
        biases = (None if v is None else v[last] for v in (self.bias, self.recurrent_bias))
        return tuple(Dense(w[last], b) for w, b in zip((self.weight, self.recurrent), biases))  # type: ignore[return-value]

    def _back(self, x, step, R, walk):
        (h,), (R_h,) = step["before"], R
        z, n = step["z"], step["n"]
        R_new, R_old = walk.sum(R_h, (1 - z) * n, z * h, step["new"])
        R_z, R_n = walk.product(R_new, 1 - z, n)
        more, R_before = walk.product(R_old, z, h)
        R_z = R_z + more
        R_r, R_x, R_state = self._candidate_back(x, h, step, R_n, walk)
        if walk.gates:
            both, pre = np.concatenate([x, h], 1), np.concatenate([R_r, R_z], 1)
            R_in = walk.linear(self._gates, pre, both, self._gates.forward(both))
            R_x, R_state = R_x + R_in[:, : x.shape[1]], R_state + R_in[:, x.shape[1] :]
        return R_x, (R_before + R_state,), {"R_r": R_r, "R_z": R_z, "R_n": R_n}

    def _candidate_back(self, x, h, step, R_n, walk):
        """Relevance of r, x and h, for that of the candidate n."""
        r, a, d = step["r"], step["a"], x.shape[1]
        if not self.reset_after:
            R_in = walk.linear(self._candidate, R_n, np.concatenate([x, r * h], 1), a)
            R_r, R_h = walk.product(R_in[:, d:], r, h)
            return R_r, R_in[:, :d], R_h
        if walk.gates:
            R_new, R_old = walk.sum(R_n, step["a_x"], r * step["a_h"], a)
            R_r, R_old = walk.product(R_old, r, step["a_h"])
            of_x, of_h = self._parts
            R_x, R_h = walk.linear(of_x, R_new, x, step["a_x"]), walk.linear(of_h, R_old, h, step["a_h"])
            return R_r, R_x, R_h
        last = self._rows(2, 3)
        w = np.broadcast_to(self.weight[last], (len(x), self.units, d))
        weight = np.concatenate([w, r[..., None] * self.recurrent[last]], 2)
        bias = None if self.bias is None else np.broadcast_to(self.bias[last], a.shape)
        if self.recurrent_bias is not None:
            bias = self._plus(r * self.recurrent_bias[last], bias)
        R_in = walk.linear(_Weighted(weight, bias), R_n, np.concatenate([x, h], 1), a)
        return np.zeros_like(r), R_in[:, :d], R_in[:, d:]
