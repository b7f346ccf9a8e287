"""Which arrays of a Keras file belong to which layer.

Whole-model files (.h5 of Keras 1 to 3) have a group for each layer of the model, and a model in it is one
such layer: its weights are one list. `.keras` and `.weights.h5` have groups named by class and number, and
store a layer that stands in two places once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py  # type: ignore
import numpy as np

from ..errors import FileError
from ..files import stored_array, written
from .keras_layers import variables
from .keras_sequences import places

KINDS = ("TimeDistributed", "LSTM", "Bidirectional", "MultiHeadAttention")
"""Classes whose variables lie in layers of their own."""

MODELS = ("Sequential", "Functional", "Model")
"""Classes that hold layers."""

Weights = dict[str, list[np.ndarray]]
"""The arrays of a layer by its path: the names of the models that it is in, then its own."""


class Slot(NamedTuple):
    """A variable of the model: its layer's path and name, its own name and number, whether it is trained."""

    path: str
    layer: str
    name: str
    number: int
    trained: bool


def entries(config: Any) -> list[dict]:
    """The layers of a model's configuration."""
    return config if isinstance(config, list) else config["layers"]


def name_of(entry: dict) -> str:
    """The name of a layer."""
    return entry.get("name") or entry["config"]["name"]


def nested(entry: dict) -> bool:
    """Whether a layer is a model."""
    return entry["class_name"] in MODELS


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dict]]:
    """Every layer that is no model, with its path."""
    for entry in entries(config):
        path = f"{prefix}{name_of(entry)}"
        if nested(entry):
            yield from leaves(entry["config"], f"{path}/")
        else:
            yield path, entry


class Twins:
    """Recognises a layer that stands in the configuration a second time.

    Keras marks it with ``shared_object_id``, though not always where it stands first; its name and
    configuration are then the same.
    """

    def __init__(self) -> None:
        self._by_id: dict[Any, str] = {}
        self._by_form: dict[str, str] = {}

    def first(self, path: str, entry: dict, unmarked: bool = False) -> str | None:
        """The path under which this layer stood before; None, and remembered, where it is new.

        `unmarked`: also without its mark.
        """
        mark, form = entry.get("shared_object_id"), _form(entry)
        before = self._by_id.get(mark) if mark is not None else None
        if before is None and (mark is not None or unmarked):
            before = self._by_form.get(form)
        if mark is not None:
            self._by_id.setdefault(mark, before or path)
        self._by_form.setdefault(form, before or path)
        return before


def _form(entry: dict) -> str:
    """What two entries of one layer have in common."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if k not in ("shared_object_id", "inbound_nodes")}
        return [bare(v) for v in value] if isinstance(value, list) else value

    return json.dumps([entry["class_name"], name_of(entry), bare(entry["config"])], sort_keys=True)


# ---------------------------------------------------------------- a group for each layer of the model


def legacy(group: h5py.Group, file: Path, config: Any, keras: int, whole: bool) -> Weights:
    """The arrays of a file in which layers are groups.

    Parameters
    ----------
    group : h5py.Group
        The one with the attribute ``layer_names``.
    file : path
        For messages.
    config : list or dict
        The model's.
    keras : int
        The version of Keras that wrote it.
    whole : bool
        Whether configuration and weights come from one file. Then names count as long as all are found;
        otherwise layers are matched by their order, as Keras does.
    """
    own = {name_of(e): e for e in entries(config) if _slots([e], keras)}
    stored = {name: _weight_names(group[name]) for name in _layer_names(group) if name in group}
    listed = [name for name, names in stored.items() if names]
    if not (whole and set(own) <= set(listed)) and len(listed) == len(own):
        places = dict(zip(own, listed))
    elif whole:
        places = {name: name for name in own if name in stored}
    else:
        raise FileError(
            f"{file} has weights of {len(listed)} layers, but the architecture {len(own)} such layers"
        )
    found: Weights = {}
    for name, place in places.items():
        names = stored[place]
        for n in names:
            if n not in group[place]:
                raise FileError(f"{file}: layer {place!r}: the weights {n!r} are missing")
        arrays = [_array(group[place][n], f"{file}: {n} of layer {place!r}") for n in names]
        if nested(own[name]):
            found |= _sorted_out(own[name], names, arrays, keras, whole, file)
        else:
            found[name] = arrays
    return found


def _layer_names(group: h5py.Group) -> list[str]:
    names = _texts(group, "layer_names")
    return names if names else list(group)


def _weight_names(group: h5py.Group) -> list[str]:
    """The variables of a group, without the states of random generators."""
    return [n for n in _texts(group, "weight_names") if not re.search(r"(StateVar|seed_generator_state)", n)]


def _array(data: Any, where: str) -> np.ndarray:
    """The values of a variable. Keras stores bfloat16, which HDF5 has not, as the first bytes of float32."""
    if not isinstance(data, h5py.Dataset) or data.dtype != np.dtype("V2") or data.shape is None:
        return stored_array(data, where)
    if data.nbytes > 2**20 + 1100 * data.id.get_storage_size():
        raise FileError(f"{where} claims {data.nbytes} bytes, but stores {data.id.get_storage_size()}")
    written(data, where)
    return (np.asarray(data[()]).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _texts(group: h5py.Group, name: str) -> list[str]:
    """An attribute that is a list of texts, and may have been cut into several."""
    if name in group.attrs:
        values = list(group.attrs[name])
    else:
        chunks = sorted(
            (k for k in group.attrs if re.fullmatch(rf"{name}\d+", k)), key=lambda k: int(k[len(name) :])
        )
        values = [n for k in chunks for n in group.attrs[k]]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _sorted_out(
    entry: dict, names: list[str], arrays: list[np.ndarray], keras: int, whole: bool, file: Path
) -> Weights:
    """The weights of a model that is a layer, which are one list, as those of its layers."""
    order = _slots([entry], keras)
    if len(order) != len(arrays):
        order = _slots([entry], keras, unmarked=True)
    if len(order) != len(arrays):
        raise FileError(
            f"{file}: model {name_of(entry)!r}: the number of weights is not that of its layers, "
            f"{len(arrays)} instead of {len(order)}"
        )
    by_name = _by_name(order, names) if whole else None
    values = dict(zip(order, arrays)) if by_name is None else {s: arrays[n] for s, n in by_name.items()}
    found: Weights = {}
    for slot in sorted(values, key=lambda s: s.number):
        found.setdefault(slot.path, []).append(values[slot])
    twins = Twins()
    for path, leaf in leaves([entry]):
        before = twins.first(path, leaf, unmarked=path not in found)
        if path not in found and before in found:
            found[path] = found[before]
    return found


def _by_name(order: list[Slot], names: list[str]) -> dict[Slot, int] | None:
    """The number of each variable's array by names such as conv/kernel:0, if they say it for all."""
    ends = ["/".join(n.split(":")[0].split("/")[-2:]) for n in names]
    wanted = [f"{slot.layer}/{slot.name}" for slot in order]
    if len(set(ends)) != len(ends) or set(ends) != set(wanted):
        return None
    return {slot: ends.index(w) for slot, w in zip(order, wanted)}


def _slots(layers: list[dict], keras: int, prefix: str = "", unmarked: bool = False) -> list[Slot]:
    """The variables of layers in the order in which Keras lists them: trained ones first."""
    trained, rest = _parts(layers, keras, prefix, Twins(), unmarked)
    return trained + rest


def _parts(
    layers: list[dict], keras: int, prefix: str, twins: Twins, unmarked: bool
) -> tuple[list[Slot], list[Slot]]:
    """The variables that are trained, and the others."""
    trained: list[Slot] = []
    rest: list[Slot] = []
    for entry in layers:
        c, path = entry["config"], f"{prefix}{name_of(entry)}"
        trains = not isinstance(c, dict) or c.get("trainable", True) is not False
        if nested(entry):
            own, others = _parts(entries(c), keras, f"{path}/", twins, unmarked)
            if keras >= 3:  # by the variables' own flags, and not at all in a frozen model
                whole = sorted(own + others, key=_place_in(entry, path))
                own, others = ([s for s in whole if s.trained], [s for s in whole if not s.trained])
                own, others = (own, others) if trains else ([], whole)
            elif not trains:
                own, others = [], own + others
        elif twins.first(path, entry, unmarked) is not None:
            continue
        else:
            slots = [
                Slot(path, name_of(entry), name, n, flag and trains)
                for n, (name, flag) in enumerate(variables(entry["class_name"], c))
            ]
            own, others = [s for s in slots if s.trained], [s for s in slots if not s.trained]
            if not trains:
                own, others = [], slots
        trained, rest = trained + own, rest + others
    return trained, rest


def _place_in(entry: dict, path: str) -> Any:
    """A key that puts variables in the order of a model's layers."""
    places = {leaf: n for n, (leaf, _) in enumerate(leaves(entry["config"], f"{path}/"))}
    return lambda slot: (places[slot.path], slot.number)


# ---------------------------------------------------------------- groups by class and number


def stored(root: h5py.Group, file: Path, config: Any, keras: int) -> Weights:
    """The arrays of a file in which layers are ``layers/conv2d_1/vars/0``: .keras and .weights.h5.

    TensorFlow 2.12 and 2.13 call the folder ``_layer_checkpoint_dependencies`` and count a layer with
    weights twice; 2.14 and 2.15 don't count a layer that was stored before; Keras 3 does.
    """
    groups: dict[str, list[h5py.Group]] = {}
    twins = Twins()
    seen: dict[str, str] = {}

    def visit(config: Any, group: h5py.Group | None, prefix: str) -> None:
        folder, twice = _folder(group)
        counts: dict[str, int] = {}
        for entry in entries(config):
            path, kind = f"{prefix}{name_of(entry)}", _snake(entry["class_name"])
            before, number = twins.first(path, entry), counts.get(kind, 0)
            if before is not None:
                seen[path] = before
                if keras < 3 and not twice:
                    continue
            counts[kind] = number + 1 + (twice and bool(_slots([entry], keras)))
            at = kind if number == 0 else f"{kind}_{number}"
            if before is not None:
                continue
            found = folder.get(at) if folder is not None else None
            if nested(entry):
                visit(entry["config"], found, f"{path}/")
                continue
            for inner in places(entry["class_name"]):
                if isinstance(found, h5py.Group) and isinstance(found.get(inner), h5py.Group):
                    groups.setdefault(path, []).append(found[inner])

    visit(config, root, "")
    _nothing_left(root, file, {g.name for own in groups.values() for g in own})
    arrays = {
        path: [
            _array(g[k], f"{file}: {g.name}/{k} (layer {path!r})")
            for g in own
            for k in sorted(g, key=_number)
        ]
        for path, own in groups.items()
    }
    return arrays | _second_places(config, arrays, seen)


def _number(key: str) -> int:
    if not key.isdecimal():
        raise FileError(f"the weights {key!r} have a name that is no number")
    return int(key)


def _second_places(config: Any, arrays: Weights, seen: dict[str, str]) -> Weights:
    """The arrays of layers, and of layers of models, that stand in the configuration again."""
    more: Weights = {}
    twins = Twins()
    for path, entry in leaves(config):
        again = next((p for p in seen if path == p or path.startswith(f"{p}/")), None)
        first = None if again is None else seen[again] + path[len(again) :]
        alike = twins.first(path, entry, unmarked=True)
        place = first if first in arrays else alike
        if path not in arrays and place in arrays and variables(entry["class_name"], entry["config"]):
            more[path] = arrays[place]
    return more


def _folder(group: h5py.Group | None) -> tuple[h5py.Group | None, bool]:
    """Where a model keeps its layers, and whether those with weights count twice."""
    for name, twice in (("layers", False), ("_layer_checkpoint_dependencies", True)):
        found = group.get(name) if isinstance(group, h5py.Group) else None
        if isinstance(found, h5py.Group) and len(found):
            return found, twice
    return None, False


def _nothing_left(root: h5py.Group, file: Path, read: set[str]) -> None:
    """Every layer's variables in the file must have been read: else the layers are counted otherwise."""
    folder: Any = _folder(root)[0]
    for at in folder if folder is not None else ():
        group = folder[at]
        if not isinstance(group, h5py.Group):
            continue
        for inner in {"vars", *(p for kind in KINDS for p in places(kind))}:
            own = group.get(inner)
            if isinstance(own, h5py.Group) and len(own) and own.name not in read:
                raise FileError(f"{file}: no layer of the configuration reads the weights in {own.name}")
        _nothing_left(group, file, read)


def _snake(kind: str) -> str:
    """A class name as Keras 3 writes it in paths."""
    text = re.sub(r"\W+", "", kind)
    text = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", text)
    return re.sub("([a-z])([A-Z])", r"\1_\2", text).lower()
