"""The command line. It knows everything, and nothing knows it."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py  # type: ignore
import numpy as np

from . import __version__, fuse, load, save, tokens
from .auditing import audit as account
from .auditing import combined
from .composite import PRESETS
from .convert.native import check_metadata
from .errors import FileError, LRPError, UnsupportedError, lookup
from .evaluate import command as evaluation
from .experiments import command as reproducing
from .files import opened, printable, same_file, whole, write_between
from .inputs import Samples, read_npy, samples
from .jobs.relevance import CHUNK, explain_into, lost
from .network import Network
from .planning import NORMALIZATION, prepared
from .seed import SEEDS
from .text import flow_table
from .wiring import leading_to

RAW = argparse.RawDescriptionHelpFormatter
HEATMAPS = 100
"""Heatmaps written when not told otherwise."""

EXAMPLES = """\
examples:
  numpylrp inspect weights/mnist_cnn.h5
  numpylrp inspect weights/mnist_cnn.h5 --composite epsilon-gamma-box
  numpylrp explain weights/mnist_cnn.h5 weights/digits.h5 --out out
"""
FUSE = """\
examples:
  numpylrp fuse weights/mnist_cnn_bn.h5 --out fused.h5
"""
CONVERT = """\
examples:
  numpylrp convert model.keras --out model.h5
  numpylrp convert model.onnx --class-names labels.txt --input-range 0 1 --out model.h5
  numpylrp convert silero_vad.onnx --input-shape 576 --constant sr=16000 --constant state=state.npy \\
      --outputs output --out voice.h5
  numpylrp convert tensors.h5 --architecture network.json --out model.h5

PyTorch modules are written where PyTorch is, by numpylrp.export.torch.save.
"""
COMPARE = """\
examples:
  numpylrp vectors --out vectors
  numpylrp compare vectors/conv2d-padding.h5 mine.npz --case gamma
  numpylrp compare model.h5 mine.npz --inputs images.npy --composite epsilon-plus
  numpylrp compare theirs.npz mine.npz

The candidate's arrays are named as the layers whose output's relevance they are, or as the input. The exit
status is 0 where all agrees.
"""
AUDIT = """\
examples:
  numpylrp audit weights/mnist_cnn_bn.h5 weights/digits.h5 --first 100
  numpylrp audit model.h5 images.npy --composite epsilon-alpha2-beta1 --out audit

What was not sent on was absorbed by a bias or by epsilon, dropped where nothing contributes, made by the
rule itself, or lies on padding. The numbers add up, and the causes are put into words.
"""
EXPLAIN = """\
examples:
  numpylrp explain sentences.h5 tokens.npy --tokens vocab.txt --composite attnlrp --out out
  numpylrp explain weights/mnist_cnn.h5 weights/digits.h5 --out out
  numpylrp explain model.h5 images.npz --dataset x_test --scale 1/255 --target true --labels y_test --out out
  numpylrp explain model.h5 photos/ --resize --composite epsilon-gamma-box --target "tabby cat" --out out

A run that was stopped goes on where it was when the same command is given again.
"""


def show(*texts: object, **options: Any) -> None:
    """Print, with what a terminal would obey made visible: names come from files of strangers."""
    print(*(printable(text) for text in texts), **options)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="numpylrp",
        description="Layer-wise Relevance Propagation in plain NumPy.",
        epilog=EXAMPLES,
        formatter_class=RAW,
    )
    top.add_argument("--version", action="version", version=f"numpylrp {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    for add in COMMANDS:
        add(commands)
    evaluation.add_parser(commands, _inputs, _normalization, _bounds)
    reproducing.add_parser(commands)
    return top


def _add_inspect(commands: Any) -> None:
    one = commands.add_parser(
        "inspect", help="show the layers of a model", formatter_class=RAW, epilog=EXAMPLES
    )
    one.set_defaults(command=inspect)
    one.add_argument("model", metavar="MODEL")
    one.add_argument(
        "--composite", choices=PRESETS, metavar="NAME", help="show which layer would get which rule"
    )
    _normalization(one)
    _bounds(one)


def _add_fuse(commands: Any) -> None:
    one = commands.add_parser(
        "fuse", help="write a model without its normalization layers", formatter_class=RAW, epilog=FUSE
    )
    one.set_defaults(command=write_fused)
    one.add_argument("model", metavar="MODEL")
    one.add_argument("--out", required=True, metavar="FILE", help="HDF5 file to write, in float64")
    one.add_argument("--layers", nargs="+", metavar="NAME", help="only these; an error where it is not exact")
    _range(one)


def _add_convert(commands: Any) -> None:
    one = commands.add_parser(
        "convert",
        help="write a model of another format in our own schema",
        formatter_class=RAW,
        epilog=CONVERT,
    )
    one.set_defaults(command=convert)
    one.add_argument("model", metavar="MODEL", help="Keras' .h5, .hdf5 or .keras, .onnx, or tensors in HDF5")
    one.add_argument("--out", required=True, metavar="FILE", help="HDF5 file to write")
    one.add_argument("--architecture", metavar="FILE", help="JSON, for weights alone (default: beside them)")
    one.add_argument("--class-names", metavar="FILE", help="a name a line, or a JSON list or object")
    _range(one)
    one.add_argument(
        "--input-shape",
        nargs="+",
        type=_count,
        metavar="N",
        help="sample shape, where an .onnx leaves it open",
    )
    one.add_argument(
        "--constant",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input of an .onnx that is no sample, such as a rate: a number, or an .npy",
    )
    one.add_argument("--outputs", nargs="+", metavar="NAME", help="the outputs of an .onnx to keep")


def _add_explain(commands: Any) -> None:
    one = commands.add_parser(
        "explain", help="explain samples with a model", formatter_class=RAW, epilog=EXPLAIN
    )
    one.set_defaults(command=explain)
    one.add_argument("model", metavar="MODEL")
    _inputs(one)
    one.add_argument("--out", required=True, metavar="DIR", help="folder for what is written")
    _method(one)
    one.add_argument("--batch-size", type=_count, metavar="N", help="samples at a time (default: by memory)")
    one.add_argument(
        "--heatmaps",
        type=int,
        default=HEATMAPS,
        metavar="N",
        help=f"write heatmaps of the first N samples (default {HEATMAPS}; 0 for none, -1 for all)",
    )
    one.add_argument("--overwrite", action="store_true", help="replace the result of another run")
    one.add_argument(
        "--kind", choices=tokens.KINDS, help="what inputs are shown as (default: what the model takes)"
    )
    one.add_argument("--tokens", metavar="FILE", help="the vocabulary of texts: vocab.txt or tokenizer.json")


def _add_audit(commands: Any) -> None:
    one = commands.add_parser(
        "audit", help="show where relevance went, layer by layer", formatter_class=RAW, epilog=AUDIT
    )
    one.set_defaults(command=audit)
    one.add_argument("model", metavar="MODEL")
    _inputs(one)
    _method(one)
    one.add_argument("--sample", type=int, metavar="N", help="the table of one sample (default: the mean)")
    one.add_argument("--out", metavar="DIR", help="folder for audit_table.txt, audit.png and audit.h5")


def _add_compare(commands: Any) -> None:
    one = commands.add_parser(
        "compare",
        help="say whether another implementation's relevance is right, and why not",
        formatter_class=RAW,
        epilog=COMPARE,
    )
    one.set_defaults(command=compare)
    one.add_argument("reference", metavar="REFERENCE", help="a file of vectors, a model, or relevance")
    one.add_argument("candidate", metavar="CANDIDATE", help=".npz or .h5: arrays named as the layers")
    one.add_argument("--case", metavar="NAME", help="of a file of vectors (default: the one that fits best)")
    one.add_argument("--inputs", nargs="+", metavar="FILE", help="of a model: what was explained")
    _reading(one)
    _method(one, dtype=False)  # the judge calculates in float64
    one.add_argument(
        "--tolerance",
        type=float,
        metavar="F",
        help="relative to the largest |value| (default 1e-9 for a candidate in float64, 1e-4 in float32)",
    )


def _add_vectors(commands: Any) -> None:
    one = commands.add_parser("vectors", help="write the published test vectors")
    one.set_defaults(command=write_vectors)
    one.add_argument("--out", required=True, metavar="DIR", help="folder for the files")
    one.add_argument("--check", action="store_true", help="show how far this library is from them")


def _add_conventions(commands: Any) -> None:
    one = commands.add_parser("conventions", help="show how other libraries deviate, and by how much")
    one.set_defaults(command=show_conventions)


def _add_conformance(commands: Any) -> None:
    one = commands.add_parser("conformance", help="run the test vectors through other libraries")
    one.set_defaults(command=conformance)
    one.add_argument("--readme", metavar="FILE", help="write the table between the marks of this file")


def _add_peer(commands: Any) -> None:
    one = commands.add_parser("peer", help="run another library on a file of vectors, and judge it")
    one.set_defaults(command=peer)
    one.add_argument("library", metavar="LIBRARY", help="zennit, captum, lxt or innvestigate")
    one.add_argument("vectors", metavar="FILE", help="a file of vectors")
    one.add_argument("--case", metavar="NAME", help="of the file (default: all that the library has)")
    one.add_argument("--out", metavar="FILE.npz", help="write its relevance, as `numpylrp compare` reads it")


COMMANDS = (
    _add_inspect,
    _add_fuse,
    _add_convert,
    _add_explain,
    _add_audit,
    _add_compare,
    _add_vectors,
    _add_conventions,
    _add_conformance,
    _add_peer,
)


def _inputs(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "inputs", metavar="INPUTS", nargs="+", help=".npy, .npz, .h5, images or a folder of them"
    )
    _reading(one)


def _reading(one: argparse.ArgumentParser) -> None:
    one.add_argument("--dataset", metavar="NAME", help="array in an .npz or .h5 (default: the one that fits)")
    one.add_argument("--labels", metavar="NAME", help='true classes in an .npz or .h5 (default: "labels")')
    one.add_argument(
        "--scale", type=_fraction, metavar="F", help="factor for the inputs, also of images: 1/255"
    )
    one.add_argument("--resize", action="store_true", help="bring images to the size of the network")
    one.add_argument("--first", type=_count, metavar="N", help="only the first N samples")


def _method(one: argparse.ArgumentParser, dtype: bool = True) -> None:
    one.add_argument(
        "--composite",
        choices=PRESETS,
        default="epsilon-plus",
        metavar="NAME",
        help=f"which layer gets which rule (default epsilon-plus): {', '.join(PRESETS)}",
    )
    _normalization(one)
    one.add_argument(
        "--seed",
        choices=SEEDS,
        default="logit",
        metavar="NAME",
        help=f"relevance to start from (default logit): {', '.join(SEEDS)}",
    )
    one.add_argument("--target", help='class: an index, a label, or "true" (default: the predicted one)')
    one.add_argument("--output", metavar="NAME", help="which output, of a model with several")
    if dtype:
        one.add_argument("--dtype", choices=("float64", "float32"), default="float64", help="default float64")
    _bounds(one)


def _normalization(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--normalization",
        choices=NORMALIZATION,
        default="fused",
        metavar="NAME",
        help=f"what becomes of batch normalization (default fused): {', '.join(NORMALIZATION)}",
    )


def _range(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--input-range",
        nargs=2,
        type=_fraction,
        metavar=("LOW", "HIGH"),
        help="what the model takes: 0 .. 255 of images become that, arrays are checked against it",
    )


def _bounds(one: argparse.ArgumentParser) -> None:
    _range(one)
    one.add_argument("--low", type=float, help="lower bound of the input, for the z^B rule")
    one.add_argument("--high", type=float, help="upper bound of the input, for the z^B rule")


def _fraction(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or a fraction such as 1/255") from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What the composite was told."""
    return {name: getattr(args, name) for name in ("low", "high") if getattr(args, name) is not None}


def _network(args: argparse.Namespace, path: str, **options: Any) -> Network:
    """The model, with the input range that was given for it."""
    network = load(path, **options)
    if args.input_range:
        network.metadata["input_range"] = list(args.input_range)
        check_metadata(network)
    output = getattr(args, "output", None)
    return network if output is None else _only(network, output)


def _only(network: Network, output: str) -> Network:
    """What leads to one of the outputs of a network."""
    lookup(dict.fromkeys(network.outputs), output, "output")
    nodes = leading_to(network.nodes, [output])
    read = {name for node in nodes for name in node.inputs}
    inputs = {name: shape for name, shape in network.inputs.items() if name in read}
    metadata = dict(network.metadata)
    if len(metadata.get("class_names") or ()) not in network.shapes[output]:
        metadata.pop("class_names", None)  # those of another output
    layers = [(node.name, node.layer, node.inputs) for node in nodes]
    return Network(layers, inputs, output, metadata).astype(network.dtype)


def _not_the_source(args: argparse.Namespace) -> None:
    """Refuse to write over the model that is read."""
    for source in (args.model, getattr(args, "architecture", None)):
        if source is not None and same_file(args.out, source):
            raise LRPError(f"--out {args.out} is the file that is read ({source}): give another")


def inspect(args: argparse.Namespace) -> None:
    """Print the layers of a model, or the rules they would get."""
    network = _network(args, args.model, dtype=None)
    count = sum(
        a.size
        for layer in {id(n.layer): n.layer for n in network.nodes}.values()
        for a in layer.arrays().values()
    )
    inputs = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in network.inputs.items())
    show(f"{args.model}: {inputs}, {len(network)} layers, {count:,} parameters, {network.dtype}")
    for key, value in network.metadata.items():
        show(f"{key}: {value}")
    show()
    if args.composite:
        fused, rules = prepared(network, args.composite, args.normalization, **_options(args))
        show(rules.table(fused))
        return
    show(network)
    _, report = fuse(network, probe=0)
    if report.entries:
        show(f"\nwhat fusing would do (numpylrp fuse):\n{report}")


def write_fused(args: argparse.Namespace) -> None:
    """Write the equivalent network without normalization layers, and print what was done."""
    _not_the_source(args)
    network = _network(args, args.model)
    fused, report = fuse(network, args.layers)
    show(report)
    save(fused, args.out)
    show(f"\n{args.out}: {fused!r}")


def convert(args: argparse.Namespace) -> None:
    """Write a model of another format in our own schema."""
    _not_the_source(args)
    if args.input_shape or args.constant or args.outputs:
        from .export import onnx

        fixed = dict(map(_fixed, args.constant))
        network = onnx.convert(
            args.model, input_shape=args.input_shape, constants=fixed, outputs=args.outputs
        )
    else:
        network = load(args.model, dtype=None, architecture=args.architecture)
    if args.class_names:
        network.metadata["class_names"] = _names(Path(args.class_names), network)
    if args.input_range:
        network.metadata["input_range"] = list(args.input_range)
    check_metadata(network)
    save(network, args.out)
    show(f"{args.out}: {network!r}")


def _fixed(text: str) -> tuple[str, Any]:
    """The name and value of NAME=VALUE."""
    name, found, value = text.partition("=")
    if not found:
        raise LRPError(f"--constant must be NAME=VALUE, not {text!r}")
    if value.endswith(".npy"):
        return name, read_npy(value)
    try:
        return name, np.array(int(value) if re.fullmatch(r"[+-]?\d+", value) else float(value))
    except ValueError:
        raise LRPError(f"--constant {name} must be a number or an .npy file, not {value!r}") from None


def _names(path: Path, network: Network) -> list[str]:
    """Class names from a file: a line each (with or without a number before), or JSON."""
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if path.suffix == ".json" else text.split("\n")
    except ValueError as error:
        raise FileError(f"{path} is not JSON ({error})") from None
    if isinstance(names, dict):  # {"0": "cat"} or ImageNet's {"0": ["n02123045", "tabby"]}
        names = [names[k] for k in sorted(names, key=lambda k: int(k) if k.isdecimal() else k)]
    names = [str(n[-1] if isinstance(n, list) else n).strip() for n in names]
    names = [n for n in names if n]
    if all(n.split()[0] == str(k) and len(n.split()) > 1 for k, n in enumerate(names)):
        names = [n.split(maxsplit=1)[1] for n in names]
    classes = network.shapes[network.outputs[0]]
    if len(names) not in classes:
        raise FileError(f"{path} has {len(names)} class names, but the network's output has shape {classes}")
    return names


def explain(args: argparse.Namespace) -> None:
    """Explain samples; write relevance, heatmaps and an audit."""
    network = _network(args, args.model, dtype=args.dtype)
    given = samples(args.inputs, network, args.dataset, args.labels, args.scale, args.resize)
    given.first = args.first
    known = None if args.tokens is None else tokens.vocabulary(args.tokens)
    shown = _shown(network, args.kind, known)
    count = len(given) if args.heatmaps < 0 else min(args.heatmaps, len(given))
    if count:
        from . import plot

        plot.require()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    steps = explain_into(
        out / "relevance.h5",
        network,
        given,
        target=int(args.target) if args.target and args.target.isdecimal() else args.target,
        composite=args.composite,
        normalization=args.normalization,
        seed=args.seed,
        batch_size=args.batch_size,
        overwrite=args.overwrite,
        progress=_progress(),
        say=lambda text: show(text, file=sys.stderr),
        **_options(args),
    )
    flow = f"{len(given)} samples, {args.model}, {args.composite}, mean over samples\n{flow_table(steps)}\n"
    with whole(out / "audit.txt") as beside:
        beside.write_text(flow, encoding="utf-8")
    show(flow)
    _report_accuracy(out / "relevance.h5")
    if missing := lost(out / "relevance.h5"):
        show(f"warning: {missing}")
    show(f"{out / 'relevance.h5'}: relevance of {len(given)} samples")
    show(f"{out / 'audit.txt'}: where relevance went")
    _heatmaps(network, given, out, count, shown)


def _shown(network: Network, kind: str | None, known: list[str] | None) -> Callable[..., None]:
    """What writes the picture of one sample: called with its values, its relevance and a path."""
    from . import plot

    first = tokens.kind_of(network)
    chosen = kind or ("image" if first == "table" else first)
    if known is not None and chosen != "text":
        raise LRPError(f"--tokens is for texts, and the inputs are shown as {chosen} (--kind text)")
    rank = len(next(iter(network.inputs.values())))
    if (chosen in ("text", "table") and rank != 1) or (chosen == "series" and rank not in (1, 2)):
        raise LRPError(f"inputs with {rank} axes can't be shown as {chosen}")
    if chosen == "text":
        return _Text(network, known)
    if chosen == "table":
        return lambda x, R, path: tokens.table([f"x{n}" for n in range(len(x))], x, R, path)
    if chosen == "series":
        order = rank == 1 or tokens.time_is_first(network)
        return lambda x, R, path: tokens.series(
            x if rank == 2 else x[:, None], R if rank == 2 else R[:, None], path, time_first=order
        )
    return lambda x, R, path: plot.save_png(plot.heatmap(R), path)


class _Text:
    """Texts of one network, and the page that they come on."""

    def __init__(self, network: Network, known: list[str] | None) -> None:
        self.network, self.known = network, known

    def words(self, x: Any) -> list[str]:
        return tokens.words_of(self.network, x, self.known)

    def __call__(self, x: Any, R: Any, path: Path) -> None:
        tokens.picture(self.words(x), R, path)

    def page(self, x: Any, R: Any, titles: list[str], path: Path) -> None:
        """All samples on a page; the first few on a terminal."""
        texts = [self.words(sample) for sample in x]
        tokens.page(list(zip(titles, texts, R)), path)
        if sys.stdout.isatty():
            for title, text, one in list(zip(titles, texts, R))[:3]:
                show(f"\n{title}:")
                print(tokens.terminal(text[:400], one[:400]))


def audit(args: argparse.Namespace) -> None:
    """Account for all relevance on the way from the output to the input."""
    network = _network(args, args.model, dtype=args.dtype)
    given = samples(args.inputs, network, args.dataset, args.labels, args.scale, args.resize)
    given.first = args.first
    if args.sample is not None and not 0 <= args.sample < len(given):
        raise LRPError(f"--sample is to be 0 .. {len(given) - 1}, not {args.sample}")
    if args.out:
        from . import plot

        plot.require("matplotlib")
    targets = _target(args, given.labels)
    network, rules = prepared(network, args.composite, args.normalization, **_options(args))
    parts = []
    for first in range(0, len(given), CHUNK):
        rows = slice(first, min(first + CHUNK, len(given)))
        chosen = targets[rows] if isinstance(targets, list) else targets
        options = {"composite": rules, "normalization": "linear", "seed": args.seed}
        parts.append(account(network, given[rows], chosen, **options))
    whole_account = combined(parts)
    text = str(whole_account)
    if args.sample is not None:
        text = f"sample {args.sample}\n{whole_account.table(args.sample)}"
    show(text)
    if args.out:
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        with whole(out / "audit_table.txt") as beside:
            beside.write_text(f"{text}\n", encoding="utf-8")
        whole_account.save(out / "audit.h5")
        plot.audit(whole_account, out / "audit.png")
        show(f"\n{out}: audit_table.txt, audit.png, audit.h5")


def compare(args: argparse.Namespace) -> int:
    """Judge another implementation's relevance."""
    from .validate import compare as judge
    from .validate import vectors

    candidate = judge.read_candidate(args.candidate)
    kind = _kind_of(args.reference)
    if kind == "vectors":
        if args.inputs or args.target:
            raise LRPError("a file of vectors has its own inputs, rules and seed: --case chooses")
        given = vectors.read(args.reference)
        if args.case is not None and args.case not in given.cases:
            raise LRPError(f"there is no case {args.case!r}; there are {', '.join(given.cases)}")
        names = list(given.cases) if args.case is None else [args.case]
        verdicts = {}
        for name in names:
            case = given.cases[name]
            verdicts[name] = judge.judge(
                given.network,
                given.x,
                case.rules,
                candidate,
                seed=case.seed,
                normalization=case.normalization,
                tolerance=args.tolerance,
            )
        ranked = sorted(verdicts, key=lambda name: verdicts[name].rank)
        name, verdict = ranked[0], verdicts[ranked[0]]
        show(f"{given.name}, case {name}: {given.description}")
        if args.case is None and len(ranked) > 1:
            show(f"(the case that fits best, of {len(ranked)}; the next is {ranked[1]}; --case NAME chooses)")
    elif kind == "model":
        if not args.inputs:
            raise LRPError(
                "with a model as the reference, give --inputs, and --composite if it is not epsilon-plus"
            )
        network = _network(args, args.reference)
        data = samples(args.inputs, network, args.dataset, args.labels, args.scale, args.resize)
        data.first = args.first
        if set(candidate) == {"input"}:
            candidate = {next(iter(network.inputs)): candidate["input"]}
        _, rules = prepared(network, args.composite, args.normalization, **_options(args))
        target = _target(args, data.labels)
        verdict = judge.judge(
            network,
            data[0 : len(data)],
            rules,
            candidate,
            target=target[: len(data)] if isinstance(target, list) else target,
            seed=args.seed,
            normalization=args.normalization,
            tolerance=args.tolerance,
        )
    else:
        verdict = judge.compare(judge.read_candidate(args.reference), candidate, args.tolerance)
    show(verdict)
    return 0 if verdict.agrees else 1


def _kind_of(path: str) -> str:
    """Whether a reference is a file of vectors, a model, or relevance."""
    if not Path(path).is_file():
        raise FileError(f"{path} does not exist")
    if Path(path).suffix == ".npz":
        return "relevance"
    if h5py.is_hdf5(path):
        with opened(path) as file:
            if "vectors" in file:
                return "vectors"
            model = "format" in file.attrs or "model_config" in file.attrs or "layer_names" in file.attrs
        return "model" if model else "relevance"
    return "model"


def _target(args: argparse.Namespace, labels: Any) -> Any:
    """The class that was asked for."""
    if args.target == "true":
        if labels is None:
            raise LRPError("target 'true' needs labels, and the inputs have none")
        return labels.tolist()
    return int(args.target) if args.target and args.target.isdecimal() else args.target


def write_vectors(args: argparse.Namespace) -> None:
    """Write the published vectors."""
    from .validate import vectors

    paths = vectors.write(args.out)
    cases, size = sum(len(vectors.read(p).cases) for p in paths), sum(p.stat().st_size for p in paths)
    show(f"{args.out}: {len(paths)} files, {cases} cases, {size / 2**20:.1f} MB")
    if args.check:
        for dtype, fast in itertools.product(("float64", "float32"), (False, True)):
            found = [line for path in paths for line in vectors.check(path, dtype, fast)]
            worst, part = max(e for *_, e, _ in found), max(e / b for *_, e, b in found)
            which = "fast" if fast else "plain"
            show(f"numpylrp in {dtype}: largest error {worst:.1e} ({which} path),")
            show("  relative to the array's largest value,")
            show(f"  in {len(found)} arrays; at most {part:.0%} of a bound")


def show_conventions(args: argparse.Namespace) -> None:
    """Print the deviations of other libraries."""
    from .validate import conventions

    show(conventions.table())


def peer(args: argparse.Namespace) -> int:
    """Run another library on published vectors, and judge what it gives."""
    from .validate import compare as judge
    from .validate import libraries, vectors
    from .validate.candidate import write_candidate

    given = vectors.read(args.vectors)
    lookup(given.cases, args.case or next(iter(given.cases)), "case")
    if args.out and args.case is None:
        raise LRPError("--out writes the relevance of one case: --case chooses it")
    right = []
    for name in [args.case] if args.case else list(given.cases):
        try:
            R = libraries.dump(args.library, given, name)
        except UnsupportedError as error:
            if args.case:
                raise
            show(f"{name}: not to be had ({error})")
            continue
        if args.out:
            write_candidate(args.out, R)
        case = given.cases[name]
        verdict = judge.judge(
            given.network,
            given.x,
            case.rules,
            R,
            seed=case.seed,
            normalization=case.normalization,
            seconds=20.0,
        )
        right.append(verdict.agrees)
        show(verdict if args.case else f"{name}: {verdict.cause}")
    return 0 if right and all(right) else 1


def conformance(args: argparse.Namespace) -> None:
    """Print the conformance table."""
    from .validate import conformance as peers

    if args.readme:
        write_between(peers.MARKS, None, args.readme)  # are the marks there?
    text = peers.table(peers.outcomes())
    show(text)
    if args.readme:
        write_between(peers.MARKS, text, args.readme)


def _progress() -> Callable[[int, int, int], None]:
    started = time.monotonic()

    def tell(done: int, total: int, now: int) -> None:
        passed = time.monotonic() - started
        if sys.stderr.isatty():
            left = passed / now * (total - done)
            end = "\n" if done == total else ""
            print(f"\r{done}/{total} samples, {left:.0f} s left   ", end=end, file=sys.stderr, flush=True)
        elif done == total or done * 10 // total != (done - 1) * 10 // total:
            show(f"{done}/{total} samples, {passed:.0f} s", file=sys.stderr)

    return tell


def _report_accuracy(path: Path) -> None:
    """How many labels are what is predicted, where labels are classes."""
    with opened(path) as file:
        if "label" not in file:
            return
        label, output = file["label"][()], file["output"]
        classes = 2 if output[0].size == 1 else output.shape[1]
        if label.dtype.kind not in "iu" or label.min() < 0 or label.max() >= classes:
            return  # a regression
        right = int((label == file["prediction"][()]).sum())
        show(f"{right} of {len(label)} samples classified correctly")


def _heatmaps(network: Network, given: Samples, out: Path, count: int, shown: Callable[..., None]) -> None:
    """Heatmaps of the first samples in place of all that were there, and the overview."""
    folder = out / "heatmaps"
    old = {path for path in folder.glob("*.png") if re.fullmatch(r"\d{5,}_.*", path.stem)}
    if not count:
        for path in (*old, out / "overview.png", out / "text.html"):
            path.unlink(missing_ok=True)
        return
    from . import plot

    folder.mkdir(exist_ok=True)
    with opened(out / "relevance.h5") as file:
        for n in range(count):
            label = "".join(c if c.isalnum() else "_" for c in _explained(file, n, network)[:60])
            path = folder / f"{n:05d}_{label}.png"
            shown(given[n : n + 1][0], file["attribution"][n], path)
            old.discard(path)
        for path in old:
            path.unlink()
        show(f"{folder}: heatmaps of {count} samples, named by position and class explained")
        if isinstance(shown, _Text):
            titles = [f"{n}: {_title(file, n, network)}" for n in range(count)]
            shown.page(given[0:count], file["attribution"][:count], titles, out / "text.html")
            show(f"{out / 'text.html'}: the texts, coloured")
            return
        few = min(count, 12)
        labels = [_title(file, n, network) for n in range(few)]
        title = "red speaks for the class explained, blue against it"
        if file["output"][0].size == 1:
            title = "red speaks for a larger output, blue for a smaller one"
        plot.tiles(given[0:few], file["attribution"][:few], labels, title, out / "overview.png")
        show(f"{out / 'overview.png'}: the first {few} at a glance")


def _name(network: Network, k: int) -> str:
    names = network.metadata.get("class_names")
    return str(names[k]) if names and k < len(names) else str(k)


def _explained(file: Any, n: int, network: Network) -> str:
    """What a heatmap is of: the class explained, or the only output."""
    if file["output"][n].size == 1:
        return f"output {file['output'][n].item():.3g}"
    return _name(network, int(file["target"][n]))


def _title(file: Any, n: int, network: Network) -> str:
    """What is explained, and what is true or was predicted where that differs."""
    title = _explained(file, n, network)
    predicted, single = int(file["prediction"][n]), file["output"][n].size == 1
    if single and len(network.metadata.get("class_names") or ()) == 2:
        title += f", {_name(network, predicted)}"
    if not single and predicted != file["target"][n]:
        title += f", not {_name(network, predicted)}"
    if "label" in file and file["label"][n] != (predicted if single else file["target"][n]):
        title += f" (is {_name(network, int(file['label'][n]))})"
    return title


def _warning(message: Any, category: type, *where: Any, **more: Any) -> None:
    show(f"numpylrp: warning: {message}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 if it went well, 1 for an error, 2 for a wrong call, 130 when interrupted."""
    args = parser().parse_args(argv)
    warnings.showwarning = _warning
    try:
        return args.command(args) or 0
    except BrokenPipeError:  # whoever read along has stopped: no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LRPError, OSError) as error:
        show(f"numpylrp: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        text = str(error) or "an array did not fit"
        show(f"numpylrp: not enough memory ({text}): --batch-size or --first takes less", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        show("numpylrp: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
