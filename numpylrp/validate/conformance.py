"""The conformance table: what other libraries make of the published vectors, live, and why they differ.

Needs the extra ``peers``::

    numpylrp conformance                      # prints the table
    numpylrp conformance --readme notebooks/conformance.md   # and writes it between the marks there
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import LRPError
from ..layers import LRN
from ..rules import Rule
from . import libraries as others
from . import vectors
from .compare import Row, judge
from .conventions import CONVENTIONS

AGREES = 1e-4
"""A larger difference, relative to the largest relevance, is no matter of stabilizers."""

SECONDS = 20.0
"""How long the judge looks for a cause of one difference."""

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
    versions = others.installed()
    chosen = versions if libraries is None else {name: versions[name] for name in libraries}
    found = []
    for name in vectors.names() if names is None else names:
        given = vectors.made(name)
        for library, version in chosen.items():
            for case_name, case in given.cases.items():
                found.append(_outcome(others.library(library), library, version, given, case_name, case))
    return found


def _outcome(run, library: str, version: str, given, name: str, case) -> Outcome:
    what = (library, version, given.name, name)
    try:
        if len(given.x) > 1:
            raise LRPError("a network with several inputs is not translated")
        (source,), (x,) = given.x, given.x.values()
        R = run(given.network, x, case.rules, case.seed, case.normalization)[source]
    except LRPError as error:
        return Outcome(*what, None, str(error))
    if not np.isfinite(R).all():
        return Outcome(*what, np.inf, "NaN or infinity, from a denominator of 0")
    expected = case.R[source]
    scale = abs(expected).max()
    off = float(abs(R - expected).max() / scale) if scale else float(abs(R).max())
    if off <= AGREES:
        return Outcome(*what, off)
    verdict = judge(
        given.network,
        x,
        case.rules,
        {source: R},
        seed=case.seed,
        normalization=case.normalization,
        tolerance=AGREES,
        seconds=SECONDS,
    )
    if any(isinstance(node.layer, LRN) for node in given.network.nodes):
        return Outcome(*what, off, "no rule for local response normalization")
    return Outcome(*what, off, _why(library, verdict[source], case.rules.values()))


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
    """The outcomes in Markdown: a row for each rule, a column for each library, and the causes below.

    A cell has a mark, whether all cases agree, some (~) or none, and the largest difference of all.
    """
    found = list(found)
    libraries = list(dict.fromkeys((o.library, o.version) for o in found))
    rows: dict[str, list[Outcome]] = {}
    for o in found:
        rows.setdefault(_group(o), []).append(o)
    lines = [
        f"| rule | {' | '.join(' '.join(pair) for pair in libraries)} |",
        "|---" * (len(libraries) + 1) + "|",
    ]
    causes = []
    for case, outcome in rows.items():
        of = {library: [o for o in outcome if o.library == library] for library, _ in libraries}
        cells = [_cell(some) for some in of.values()]
        if any(cell != "-" for cell in cells):
            lines.append(f"| {case} | {' | '.join(cells)} |")
        causes += [f"- {case}, {library}: {text}" for library, some in of.items() if (text := _causes(some))]
    return "\n".join([*lines, "", "Where they differ, and why:", "", *causes] if causes else lines)


def _group(o: Outcome) -> str:
    if o.file.startswith("seq-"):
        return f"sequences, {o.case}"
    if not o.file.startswith("net-"):
        return o.case
    if o.file == "net-lrn":
        return "network with LRN"
    how = o.case.split()[-1]
    kinds = ("fused", "linear", "identity", "abs-z")
    return f"networks, batch normalization {how}" if how in kinds else f"networks, {o.file[4:]}"


def _cell(found: list[Outcome]) -> str:
    """A mark and the largest difference over all files."""
    errors = [o.error for o in found if o.error is not None]
    if not errors:
        return "-"
    right = sum(error <= AGREES for error in errors)
    mark = "✓" if right == len(errors) else "~" if right else "✗"
    most = max(errors)
    if not np.isfinite(most):
        return f"{mark} NaN"
    return f"{mark} {most:.0e}" if 0 < most < AGREES else f"{mark} {most:.2g}"


def _causes(found: list[Outcome]) -> str:
    """Why a library differs, by cause, with the files and the largest difference."""
    ran = [o for o in found if o.error is not None]
    wrong: dict[str, list[Outcome]] = {}
    for o in ran:
        if o.error > AGREES:  # type: ignore[operator]
            wrong.setdefault(o.why, []).append(o)
    texts = []
    for why, some in wrong.items():
        names = list(dict.fromkeys(o.file.removeprefix("net-") for o in some))
        files = ", ".join(names) if len(names) < 4 else f"{len(names)} files"
        largest = max(o.error for o in some)  # type: ignore[type-var]
        size = f", up to {largest:.2g}" if np.isfinite(largest) else ""  # type: ignore[arg-type]
        texts.append(f"{why} ({files}{size})")
    right = len(ran) - sum(map(len, wrong.values()))
    return f"{right} of {len(ran)} agree; {'; '.join(texts)}" if texts else ""
