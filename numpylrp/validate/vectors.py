"""Published vectors: small networks with exact relevance, in files that any implementation can be checked by.

Each file is a model file (`numpylrp.convert.native`) with one more group, ``/vectors``: inputs, the output z
of every layer and, for each case, rules, seed, the relevance R of every layer and the error that a correct
implementation keeps to. `tests/vectors/README.md` describes them for readers in other languages. Weights
and inputs are small dyadic numbers; z and R are rational numbers
of `numpylrp.validate.exact`, rounded once. `vector_plans` has the networks and cases, `vector_bounds` derives
the bounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from .. import attributing, nonlinear
from .. import rules as kinds
from ..composite import Composite
from ..convert import native
from ..errors import FileError, LRPError
from ..explanation import explain
from ..fast import plain
from ..files import digest, opened, stored_array
from ..network import Network
from ..rules import Rule
from . import exact
from . import layer_plans as layer_plans  # adds its plans
from . import sequence_plans as sequence_plans
from .exact import Tensor
from .sequence_bounds import RunningErrors, has_sequences, recorded
from .vector_bounds import UNIT, Errors, as_bounds, relative
from .vector_plans import PLANS, Numbers

FORMAT, VERSION = "numpylrp vectors", 1
EDITION = 2
"""Of the set of files: more files, the same format. A file that was published never changes."""


CONVENTIONS = {
    "stabilizer": "z + epsilon * sign(z)",
    "sign(0)": 1,
    "0/0": 0,
    "bias": "part of the denominator, where it absorbs its share; in w-square, flat and z-box it is not",
    "alpha-beta": "contributions x_i w_ij are split by sign, the bias likewise",
    "gamma": "contributions of the sign of z_j are favoured, for inputs of any sign; z_j = 0 is positive",
    "ties": "the first of equal values in row-major order wins a maximum and takes all its relevance",
    "activation": "passes relevance on unchanged",
    "padding": "zeros around an image are no inputs, in no rule and no maximum",
    "branches": "the relevance of a tensor that is read twice is the sum of what its readers send",
    "layout": "row-major, batch first, channels before height and width",
}


@dataclass(frozen=True)
class Case:
    """One explanation of a file's inputs.

    Attributes
    ----------
    rules : dict of Rule
        By the layer's name.
    normalization : str
        Of batch normalization: "linear", "fused", "identity" or "abs-z" (see `numpylrp.explain`).
    target : int or None
        The class whose logit the seed is; None for a seed of its own.
    seed : (N, *output) array
        Relevance of the network's first output.
    R : dict of (N, *shape) arrays
        Relevance of every layer's output, and of the inputs, by name.
    bounds : dict of float
        For "float64" and "float32": the largest error, relative to the largest ``|R|`` of the array.
    """

    rules: dict[str, Rule]
    normalization: str
    target: int | None
    seed: np.ndarray
    R: dict[str, np.ndarray]
    bounds: dict[str, float]


@dataclass(frozen=True)
class Vectors:
    """What one file holds.

    Attributes
    ----------
    name, description : str
    network : Network
    x : dict of (N, *shape) arrays
        The inputs, by name.
    y : dict of (N, *shape) arrays
        The output of every layer (of the network as it is, not fused), by its name.
    y_bounds : dict of float
        As `Case.bounds`, for y.
    cases : dict of Case
    conventions : dict
    recorded : dict of dict of arrays
        What is not rational inside a layer, by its name: gates of a recurrent layer, (N, T, H) each, and
        1 / d of a normalization. R is exact given these and y.
    """

    name: str
    description: str
    network: Network
    x: dict[str, np.ndarray]
    y: dict[str, np.ndarray]
    y_bounds: dict[str, float]
    cases: dict[str, Case]
    conventions: dict[str, Any]
    recorded: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)


# ---------------------------------------------------------------- making


def names() -> tuple[str, ...]:
    """The names of the files, without their ending.

    Examples
    --------
    >>> names()[:3]
    ('dense', 'dense-no-bias', 'dense-zero-outputs')
    """
    return tuple(PLANS)


def made(name: str) -> Vectors:
    """The vectors of this name, from nothing."""
    description, stream, make = PLANS[name]
    numbers = Numbers(stream)
    network, x, cases = make(numbers)
    samples = [{key: value[n] for key, value in x.items()} for n in range(2)]
    bounded: Any = RunningErrors if has_sequences(network, samples[0]) else Errors
    errors = {False: [bounded(network, sample, False) for sample in samples]}
    outputs = [exact.forward(network, sample) for sample in samples]
    y = {node.name: _stacked(output[node.name] for output in outputs) for node in network.nodes}
    worst = max(relative((e for one in errors[False] for e in one.E[key]), y[key]) for key in y)
    found = {}
    for case, rules, normalization, target, seed in cases(network, x, numbers):
        if seed is None:
            logits = y[network.outputs[0]]
            seed = np.where(np.arange(logits.shape[1]) == target, logits, 0.0)
        fused = normalization == "fused"
        if fused not in errors:
            errors[fused] = [Errors(network, sample, fused) for sample in samples]
        try:
            found[case] = _case(network, samples, errors[fused], rules, normalization, target, seed)
        except LRPError as error:
            raise type(error)(f"{name}, {case}: {error}") from None
    inside = [recorded(network, sample) for sample in samples]
    kept = {
        layer: {what: np.array([one[layer][what] for one in inside]) for what in of}
        for layer, of in inside[0].items()
    }
    return Vectors(name, description, network, x, y, as_bounds(worst), found, CONVENTIONS, kept)


def _stacked(tensors: Iterable[Tensor]) -> np.ndarray:
    return np.array([t.to_float() for t in tensors])


def _case(
    network: Network,
    samples: list[dict],
    errors: list[Errors],
    rules: dict[str, Rule],
    normalization: str,
    target: int | None,
    seed: np.ndarray,
) -> Case:
    results = [exact.explain(network, x, R, rules, normalization) for x, R in zip(samples, seed)]
    R = {
        name: _stacked(r.steps[name].R for r in results)
        for name in network.shapes
        if name in results[0].steps
    }
    R |= {name: _stacked(r.relevance[name] for r in results) for name in network.inputs}
    E = [one.back(result.steps, rules) for one, result in zip(errors, results)]
    worst = max(relative((e for one in E for e in one[name]), R[name]) for name in R)
    return Case(rules, normalization, target, seed, R, as_bounds(worst))


# ---------------------------------------------------------------- files


def write(folder: str | os.PathLike) -> list[Path]:
    """Write all files: the same bytes every time, and all of them or none.

    Parameters
    ----------
    folder : str or path
        Made where it does not exist; other files in it stay.

    Returns
    -------
    list of Path

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
    ...     paths = write(folder)
    """
    folder = Path(folder)
    beside = folder / f".vectors.{os.getpid()}.part"
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise FileError(f"{folder} can't be written to: {error.strerror or error}") from error
    try:
        for name in names():
            _save(made(name), beside / f"{name}.h5")
        for name in names():
            os.replace(beside / f"{name}.h5", folder / f"{name}.h5")
    except OSError as error:
        raise FileError(f"{folder} can't be written to: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [folder / f"{name}.h5" for name in names()]


def edition_digest(folder: str | os.PathLike) -> str:
    """SHA-256 of a whole set of files, to cite it by: of lines ``NAME CHECKSUM``, in the order of the names.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _save(made("dense"), Path(folder) / "dense.h5")
    ...     edition_digest(folder)[:14]
    'sha256:a6a13bf'
    """
    found = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.h5")):
        with opened(path) as file:
            found.update(f"{path.stem} {_attribute(file, 'checksum', path)}\n".encode())
    return f"sha256:{found.hexdigest()}"


def _save(vectors: Vectors, path: Path) -> None:
    network = vectors.network
    keys = {node.name: f"{n:04d}" for n, node in enumerate(network.nodes)}
    native.save(network, path)
    with h5py.File(path, "r+") as file:
        root = file.create_group("vectors")
        root.attrs.update(format=FORMAT, version=VERSION, description=vectors.description)
        root.attrs["conventions"] = json.dumps(vectors.conventions)
        if list(vectors.x) == ["input"]:
            root["x"] = vectors.x["input"]
        else:
            for name, value in vectors.x.items():
                root[f"inputs/{name}"] = value
        _arrays(root.create_group("y"), keys, vectors.y, vectors.y_bounds)
        for layer, of in vectors.recorded.items():
            for what, array in of.items():
                root[f"recorded/{keys[layer]}/{what}"] = array
        for name, case in vectors.cases.items():
            group = root.create_group(f"cases/{name}")
            rules = {layer: _as_json(rule) for layer, rule in case.rules.items()}
            group.attrs.update(rules=json.dumps(rules), normalization=case.normalization)
            if case.target is not None:
                group.attrs["target"] = case.target
            group["seed"] = case.seed
            _arrays(group, {}, {}, case.bounds)
            _arrays(group.create_group("R"), keys, case.R, {})
        file.attrs["checksum"] = digest(file)


def _arrays(group: h5py.Group, keys: Mapping[str, str], arrays: Mapping, bounds: Mapping) -> None:
    for kind, bound in bounds.items():
        group.attrs[f"bound_{kind}"] = bound
    for name, array in arrays.items():
        group[keys.get(name, name)] = array
        if name in keys:
            group[keys[name]].attrs["layer"] = name


def _as_json(rule: Rule) -> dict[str, Any]:
    """A rule as its class and its parameters.

    Examples
    --------
    >>> _as_json(kinds.Gamma(0.5))
    {'rule': 'Gamma', 'gamma': 0.5, 'epsilon': 0.0}
    """
    values = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule) if f.init}  # type: ignore[arg-type]
    plain = {k: _as_json(v) if isinstance(v, Rule) else np.asarray(v).tolist() for k, v in values.items()}
    return {"rule": type(rule).__name__, **plain}


def _from_json(given: Any) -> Rule:
    """The rule that `_as_json` wrote."""
    kind = _RULES.get(str(given.get("rule"))) if isinstance(given, dict) else None
    if kind is None:
        raise LRPError(f"there is no rule {given!r:.80}")
    values = {k: _from_json(v) if isinstance(v, dict) else v for k, v in given.items() if k != "rule"}
    return kind(**values)


_RULES = {
    name: kind
    for module in (kinds, nonlinear, attributing)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Rule)
}


def read(path: str | os.PathLike) -> Vectors:
    """Read a file of vectors.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    FileError
        No such file, damaged, not of this format, or something in it is missing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _save(made("dense"), Path(folder) / "dense.h5")
    ...     read(Path(folder) / "dense.h5").cases["gamma"].rules
    {'layer': Gamma(0.25)}
    """
    network = native.load(path)
    with opened(path) as file:
        if "vectors" not in file:
            raise FileError(f"{path} has a network, but no group 'vectors'")
        root = file["vectors"]
        if _attribute(root, "format", path) != FORMAT:
            raise FileError(f"{path}: /vectors is not in the format {FORMAT!r}")
        version = _attribute(root, "version", path)
        if version != VERSION:
            raise FileError(f"{path}: /vectors has version {version}; this numpylrp reads {VERSION}")
        single = list(network.inputs) == ["input"]
        where = {name: "x" if single else f"inputs/{name}" for name in network.inputs}
        x = {name: _dataset(root, key, path) for name, key in where.items()}
        n = len(next(iter(x.values())))
        for name, value in x.items():
            _fits(value, (n, *network.inputs[name]), f"{path}: input {name!r} of /vectors")
        y = _of_layers(_group(root, "y", path), network, n, path)
        for node in network.nodes:
            if node.name not in y:
                raise FileError(f"{path}: /vectors/y has no dataset of layer {node.name!r}")
        cases = {
            name: _read_case(_group(root["cases"], name, path), network, n, path)
            for name in _group(root, "cases", path)
        }
        description = _attribute(root, "description", path)
        conventions = _json(root, "conventions", path)
        y_bounds = _read_bounds(root["y"], path)
        inside = _group(root, "recorded", path) if "recorded" in root else {}
        kept = {
            network.nodes[int(key)].name: {what: _dataset(inside[key], what, path) for what in inside[key]}
            for key in inside
            if key.isdecimal() and int(key) < len(network)
        }
    return Vectors(Path(path).stem, description, network, x, y, y_bounds, cases, conventions, kept)


def _read_case(group: h5py.Group, network: Network, n: int, path: Any) -> Case:
    rules = {}
    for name, given in _json(group, "rules", path).items():
        known = isinstance(given, dict) and given.get("rule") in _RULES
        if name not in network or not known:
            raise FileError(f"{path}: {group.name} has an unknown layer or rule: {name!r}: {given!r:.80}")
        try:
            rules[name] = _from_json(given)
        except (LRPError, TypeError) as error:
            raise FileError(f"{path}: {group.name}: the rule of layer {name!r}: {error}") from None
    seed = _dataset(group, "seed", path)
    _fits(seed, (n, *network.shapes[network.outputs[0]]), f"{path}: {group.name}/seed")
    relevance = _group(group, "R", path)
    R = _of_layers(relevance, network, n, path)
    for name, shape in network.inputs.items():
        R[name] = _dataset(relevance, name, path)
        _fits(R[name], (n, *shape), f"{path}: {relevance.name}/{name}")
    target = group.attrs.get("target")
    return Case(
        rules,
        _attribute(group, "normalization", path),
        None if target is None else int(target),
        seed,
        R,
        _read_bounds(group, path),
    )


def _of_layers(group: h5py.Group, network: Network, n: int, path: Any) -> dict[str, np.ndarray]:
    """The datasets of layers, by the name that each says it has."""
    found = {}
    for key in group:
        if key in network.inputs:
            continue
        data = _dataset(group, key, path)
        name = _attribute(group[key], "layer", path)
        if name not in network:
            raise FileError(f"{path}: {group.name}/{key} is of layer {name!r}, which the network has not")
        _fits(data, (n, *network.shapes[name]), f"{path}: {group.name}/{key}")
        found[name] = data
    return found


def _read_bounds(group: h5py.Group, path: Any) -> dict[str, float]:
    return {kind: float(_attribute(group, f"bound_{kind}", path)) for kind in UNIT}


def _fits(value: np.ndarray, shape: tuple, where: str) -> None:
    if value.shape != shape:
        raise FileError(f"{where} is to have shape {shape}, not {value.shape}")


def _group(parent: h5py.Group, name: str, path: Any) -> h5py.Group:
    if not isinstance(parent.get(name), h5py.Group):
        raise FileError(f"{path}: the group {name!r} of {parent.name} is missing")
    return parent[name]


def _dataset(parent: h5py.Group, name: str, path: Any) -> np.ndarray:
    if name not in parent:
        raise FileError(f"{path}: the dataset {name!r} of {parent.name} is missing")
    return stored_array(parent[name], f"{path}: {parent.name}/{name}")


def _attribute(group: Any, name: str, path: Any) -> Any:
    if name not in group.attrs:
        raise FileError(f"{path}: the attribute {name!r} of {group.name} is missing")
    return group.attrs[name]


def _json(group: h5py.Group, name: str, path: Any) -> dict:
    try:
        value = json.loads(_attribute(group, name, path))
    except (TypeError, json.JSONDecodeError):
        value = None
    if not isinstance(value, dict):
        raise FileError(f"{path}: the attribute {name!r} of {group.name} is not a JSON object")
    return value


# ---------------------------------------------------------------- comparing


def check(
    vectors: Vectors | str | os.PathLike, dtype: Any = np.float64, fast: bool = True
) -> list[tuple[str, str, float, float]]:
    """What this library makes of the vectors.

    Parameters
    ----------
    vectors : Vectors or path
    dtype : dtype
        float64 or float32.
    fast : bool
        As in `numpylrp.explain`.

    Returns
    -------
    list of (case, layer, error, bound)
        The error is relative to the largest value of the array. The case "forward" is that of y.
        Layers that the library has fused away have no entry.

    Examples
    --------
    >>> found = check(made("dense"), np.float32)
    >>> found[-1][:2], all(error <= bound for _, _, error, bound in found)
    (('z-box', 'input'), True)
    """
    vectors = vectors if isinstance(vectors, Vectors) else read(vectors)
    network, kind = vectors.network.astype(dtype), np.dtype(dtype).name
    with contextlib.nullcontext() if fast else plain():
        values = network.record(vectors.x)
    found = [
        ("forward", name, _error(values[name], y), vectors.y_bounds[kind]) for name, y in vectors.y.items()
    ]
    for name, case in vectors.cases.items():
        # by functions: a name may have characters that a composite reads as wildcards
        entries = [(_named(layer), rule) for layer, rule in case.rules.items()]
        ours: dict[str, np.ndarray] = {}
        done = explain(
            network,
            vectors.x,
            composite=Composite(entries),
            normalization=case.normalization,
            seed=case.seed,
            watch=lambda node, rule, x, y, R, R_x: ours.update({node.name: R}),  # noqa: B023
            fast=fast,
        )
        ours |= done.relevance if isinstance(done.relevance, dict) else {"input": done.relevance}
        bound = case.bounds[kind]
        found += [
            (name, layer, _error(ours[layer], R), bound) for layer, R in case.R.items() if layer in ours
        ]
    return found


def _named(name: str) -> Callable[[Network, Any], bool]:
    return lambda network, node: node.name == name


def _error(ours: np.ndarray, exact: np.ndarray) -> float:
    most, scale = np.abs(ours - exact).max(), np.abs(exact).max()
    return float(most / scale) if scale else float("inf") if most else 0.0


__all__ = ["Case", "Vectors", "check", "edition_digest", "names", "read", "write"]
