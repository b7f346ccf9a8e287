"""The conformance table: what other libraries make of the published vectors, live, and why they differ.

Needs the extra ``peers``::

    numpylrp conformance                      # prints the table
    numpylrp conformance --readme README.md   # and writes it between the marks there
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import LRPError
from ..layers import LRN
from ..rules import Rule
from . import vectors
from .compare import Row, judge
from .conventions import CONVENTIONS

AGREES = 1e-4
"""A larger difference, relative to the largest relevance, is no matter of stabilizers."""

MARKS = ("<!-- conformance: numpylrp conformance -->", "<!-- end of conformance -->")


@dataclass(frozen=True)
class Outcome:
    """What a library made of one case.

    Attributes
    ----------
    library, version, file, case : str
    error : float or None
        Largest difference of the input's relevance, relative to its largest |value|; None where the
        library, or the translation to it, does not have what the case needs.
    why : str
        Where it differs, the judge's words; where it could not be run, the reason.
    """

    library: str
    version: str
    file: str
    case: str
    error: float | None
    why: str = ""


def outcomes(names: Iterable[str] | None = None, libraries: Iterable[str] | None = None) -> list[Outcome]:
    """Run the vectors through the libraries that are installed, in float64.

    Parameters
    ----------
    names : iterable of str, optional
        Files, as `numpylrp.validate.vectors.names` has them; by default all.
    libraries : iterable of str, optional
        By default all that are installed.
    """
    from . import peers

    versions = peers.installed()
    chosen = versions if libraries is None else {name: versions[name] for name in libraries}
    found = []
    for name in vectors.names() if names is None else names:
        given = vectors.made(name)
        for library, version in chosen.items():
            for case_name, case in given.cases.items():
                found.append(_outcome(peers.LIBRARIES[library], library, version, given, case_name, case))
    return found


def _outcome(run, library: str, version: str, given, name: str, case) -> Outcome:
    what = (library, version, given.name, name)
    try:
        if len(given.x) > 1:
            raise LRPError("a network with several inputs is not translated")
        x = given.x["input"]
        R = run(given.network, x, case.rules, case.seed, case.normalization)["input"]
    except LRPError as error:
        return Outcome(*what, None, str(error))
    if not np.isfinite(R).all():
        return Outcome(*what, np.inf, "NaN or infinity, from a denominator of 0")
    expected = case.R["input"]
    scale = abs(expected).max()
    off = float(abs(R - expected).max() / scale) if scale else float(abs(R).max())
    if off <= AGREES:
        return Outcome(*what, off)
    verdict = judge(
        given.network,
        x,
        case.rules,
        {"input": R},
        seed=case.seed,
        normalization=case.normalization,
        tolerance=AGREES,
    )
    if any(isinstance(node.layer, LRN) for node in given.network.nodes):
        return Outcome(*what, off, "no rule for local response normalization")
    return Outcome(*what, off, _why(library, verdict["input"], case.rules.values()))


def _why(library: str, row: Row, rules: Iterable[Rule]) -> str:
    """The judge's words; for what is known of a library, what that is."""
    if not row.fits:
        return row.text.removeprefix("it ")
    own = [fit for fit in row.fits if not fit.startswith(library)]
    if own:
        return own[0].replace("instead", "in its place")
    if "merged" in row.fits[0]:
        return "batch normalization passed unchanged or, where it is merged, its eps left behind"
    known = CONVENTIONS[library].notes
    notes = [known[kind] for kind in dict.fromkeys(type(rule).__name__ for rule in rules) if kind in known]
    return notes[0] if len(notes) == 1 else "its known conventions together"


def table(found: Iterable[Outcome]) -> str:
    """The outcomes in Markdown: a row for each rule, a column for each library."""
    found = list(found)
    libraries = list(dict.fromkeys((o.library, o.version) for o in found))
    rows: dict[str, list[Outcome]] = {}
    for o in found:
        rows.setdefault(_group(o), []).append(o)
    head = f"| case | {' | '.join(' '.join(pair) for pair in libraries)} |\n{'|---' * (len(libraries) + 1)}|"
    lines = [head]
    for case, outcome in rows.items():
        cells = [_cell([o for o in outcome if o.library == library]) for library, _ in libraries]
        if any(cell != "-" for cell in cells):
            lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _group(o: Outcome) -> str:
    if not o.file.startswith("net-"):
        return o.case
    return (
        "network with LRN" if o.file == "net-lrn" else f"networks, batch normalization {o.case.split()[-1]}"
    )


def _cell(found: list[Outcome]) -> str:
    """What a library makes of one case over all files."""
    ran = [o for o in found if o.error is not None]
    if not ran:
        return "-"
    right = [o for o in ran if o.error <= AGREES]  # type: ignore[operator]
    text = f"{len(right)} of {len(ran)} agree"
    if right:
        worst = max(o.error for o in right)  # type: ignore[type-var]
        text += f", to {worst:.0e}" if worst else ", exactly"
    wrong: dict[str, list[Outcome]] = {}
    for o in ran:
        if o.error > AGREES:  # type: ignore[operator]
            wrong.setdefault(o.why, []).append(o)
    for why, some in wrong.items():
        names = list(dict.fromkeys(o.file.removeprefix("net-") for o in some))
        files = ", ".join(names) if len(names) < 4 else f"{len(names)} files"
        largest = max(o.error for o in some)  # type: ignore[type-var]
        size = f"off by up to {largest:.2g}" if np.isfinite(largest) else "no number"  # type: ignore[arg-type]
        text += f"; **{size}** ({files}): {why}"
    return text.replace("|", "\\|")
