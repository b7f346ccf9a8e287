"""What the judge says: a row for each array that was given, and the cause in one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import LRPError
from ..text import aligned

SHOWN = 3
"""So many hypotheses are named; of the others their number."""

HOOKS = """\
To get further, dump relevance of layers as well ({names}); in PyTorch:
  found, keep = {{}}, lambda n: lambda y: y.register_hook(lambda R: found.update({{n: R.detach().numpy()}}))
  hook = lambda name: lambda module, x, y: keep(name)(y) if y.requires_grad else None
  for name, module in model.named_modules(): module.register_forward_hook(hook(name))"""


@dataclass
class Row:
    """The verdict on one array.

    Attributes
    ----------
    name, kind : str
        The value, and the layer that it is the output of ("Input" for an input).
    layers : tuple of str
        The layers that sent its relevance: those between it and what was given above.
    rule : str
        Their rules.
    what : str
        "relevance" or "activation".
    maximum, l2, cosine : float
        Largest difference relative to the largest |value|, the L2 norm of the difference relative to that of
        the value, and the cosine between both.
    bound : float
        The largest difference that rounding may make, relative to the largest |value|.
    agrees : bool
    fits : tuple of str
        The hypotheses that explain it, simplest first.
    text : str
        The verdict.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    rule: str
    what: str = "relevance"
    maximum: float = np.nan
    l2: float = np.nan
    cosine: float = np.nan
    bound: float = np.nan
    agrees: bool = False
    fits: tuple[str, ...] = ()
    text: str = ""

    @property
    def known(self) -> bool:
        """Whether it agrees, or is known why not."""
        return self.agrees or bool(self.fits)


@dataclass
class Verdict:
    """What the judge found: a `Row` for each array that was given.

    Activations come first, in the order of the forward pass, then relevance, backward.

    Attributes
    ----------
    rows : list of Row
    problems : dict of str
        What could not be used, or only with a change, by name.
    missing : list of str
        Layers of which nothing was given.
    decided : dict of str
        What rounding decides, by layer.
    untried : str
        Which hypotheses were not tried.
    hint : str
        What to give to get further.
    """

    rows: list[Row]
    problems: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    decided: dict[str, str] = field(default_factory=dict)
    untried: str = ""
    hint: str = ""

    def __getitem__(self, name: str) -> Row:
        for row in reversed(self.rows):  # relevance before activations
            if row.name == name:
                return row
        raise LRPError(f"no verdict on {name!r}; there are {', '.join(row.name for row in self.rows)}")

    @property
    def agrees(self) -> bool:
        """Whether all values agree and all could be used."""
        return not self.problems and all(row.agrees for row in self.rows)

    @property
    def distance(self) -> float:
        """The largest of the values' differences; infinite where nothing could be compared."""
        known = [row.maximum for row in self.rows if np.isfinite(row.maximum)]
        return max(known, default=np.inf)

    @property
    def rank(self) -> tuple:
        """How well the candidate fits what was asked for: the smallest of several verdicts fits best."""
        known = sum(row.known for row in self.rows)
        agrees = sum(row.agrees for row in self.rows)
        return not self.agrees, -known, -agrees, self.distance

    @property
    def first(self) -> Row | None:
        """The first value where candidate and definition part: activations, then relevance, backward."""
        parted = [row for row in self.rows if not row.agrees]
        compared = [row for row in parted if np.isfinite(row.maximum)]
        return next(iter(compared or parted), None)

    @property
    def cause(self) -> str:
        """Why they part there, in one sentence."""
        row = self.first
        if row is None and self.rows:
            many = len(self.rows) > 1
            text = f"all {len(self.rows)} values agree" if many else f"{self.rows[0].name!r} agrees"
            noted = [row.text for row in self.rows if row.text]
            return f"{text}; {noted[0]}" if noted else text
        if row is None:
            return "nothing was compared"
        if not row.kind:  # relevance compared with relevance: no layers are known
            return f"{row.name!r} {row.text}"
        if row.what == "activation":
            return f"the forward pass, {row.name}: its output {row.text}"
        who = names(row.layers) or "the seed"
        if len(row.layers) == 1:
            who += f" ({row.rule})"
        return f"{who}: the relevance of {row.name!r} {row.text}"

    def __str__(self) -> str:
        head = ("value of", "kind", "sent by", "rule", "max", "L2", "cosine", "bound", "verdict")
        lines = [aligned([head, *map(_cells, self.rows)])]
        lines += [f"{name}: {text}" for name, text in self.problems.items()]
        if self.missing:
            lines.append(f"not given: {', '.join(self.missing)}")
        if self.decided:
            lines.append("rounding decides " + "; ".join(self.decided.values()))
        if self.untried:
            lines.append(f"not tried: {self.untried}")
        lines.append(self.cause)
        others = [row for row in self.rows if not row.agrees and row is not self.first]
        if others:
            lines.append(self._others(others))
        if self.hint and self.first is not None and not self.first.fits:
            lines.insert(0, self.hint)
        return "\n".join(lines)

    def _others(self, others: list[Row]) -> str:
        common = [fit for fit in self.first.fits if all(fit in row.fits for row in others)]  # type: ignore[union-attr]
        if common:
            return f"The same explains all {len(others) + 1} values that differ: {'; '.join(common[:SHOWN])}"
        return f"Others that differ, each on its own: {', '.join(row.name for row in others)}"

    __repr__ = __str__


def _cells(row: Row) -> tuple[str, ...]:
    numbers = [f"{row.maximum:.1e}", f"{row.l2:.1e}", f"{row.cosine:.6f}"]
    numbers = numbers if np.isfinite(row.maximum) else ["-"] * 3
    numbers.append(f"{row.bound:.0e}" if np.isfinite(row.bound) else "-")
    word = "agrees" + f"; {row.text}" * bool(row.text) if row.agrees else row.text
    name = row.name if row.what == "relevance" else f"{row.name} ({row.what})"
    return (name, row.kind, names(row.layers), row.rule, *numbers, word)


def names(layers: tuple[str, ...]) -> str:
    """Names of layers, or how many they are."""
    return ", ".join(layers) if len(layers) < 4 else f"{layers[0]} .. {layers[-1]} ({len(layers)} layers)"


def matches(fits: tuple[str, ...], error: float) -> str:
    """In words that hypotheses explain a value."""
    known = " or ".join(f'"{fit}"' for fit in fits[:SHOWN])
    more = f" (or one of {len(fits) - SHOWN} others that would explain it too)" if len(fits) > SHOWN else ""
    return f"matches {known}{more} to {max(1e-16, error):.0e}"
