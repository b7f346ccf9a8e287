"""``numpylrp reproduce``: run an experiment, or go on with one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..plot import require
from .claims import in_words
from .experiments import EXPERIMENTS
from .report import write
from .study import FULL, QUICK, Study

EXAMPLES = """\
examples:
  numpylrp reproduce normalization --out out/normalization --data mnist.npz
  numpylrp reproduce rap --out out/rap --data mnist.npz cifar10.npz --weights weights more --images 500
  numpylrp reproduce contrast --out out/quick --quick

A run that was stopped goes on where it was when the same command is given again. Without --data the shipped
sample digits are used (500); mnist.npz has x_test and y_test as Keras distributes them. Networks of other
training seeds, NAME-seed1.h5 and so on, are made by weights/train.py and found in the folders of --weights.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers of a command line."""
    one = commands.add_parser(
        "reproduce",
        help="measure whether claims of the literature hold",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    one.set_defaults(command=run)
    one.add_argument("name", choices=EXPERIMENTS, metavar="NAME", help=", ".join(EXPERIMENTS))
    one.add_argument("--out", required=True, type=Path, metavar="DIR")
    one.add_argument("--data", nargs="+", default=[], type=Path, metavar="FILE")
    one.add_argument("--weights", nargs="+", default=[Path("weights")], type=Path, metavar="DIR")
    one.add_argument(
        "--images",
        type=int,
        metavar="N",
        help=f"test images (default {FULL['images']}), half as many of CIFAR-10",
    )
    one.add_argument("--steps", type=int, metavar="N", help=f"regions replaced (default {FULL['steps']})")
    one.add_argument("--networks", nargs="+", default=[], metavar="NAME", help="only these networks")
    one.add_argument("--quick", action="store_true", help="a dozen images, one seed: to see that it runs")


def run(args: argparse.Namespace) -> None:
    """Run the experiment and print its verdicts."""
    require()
    usual = QUICK if args.quick else FULL
    images = args.images or (usual["images"] if args.data or args.quick else 500)
    study = Study(
        args.out,
        args.weights,
        args.data,
        images,
        args.steps or usual["steps"],
        args.quick,
        args.networks,
        lambda text: print(text, file=sys.stderr),
    )
    experiment = EXPERIMENTS[args.name]
    rows, comparisons = experiment.run(study)
    write(study, args.name, experiment, rows, comparisons)
    print(experiment.title)
    for line in in_words(comparisons):
        print(f"- {line}")
    print(f"{args.out}: report.md, comparisons.csv, means.csv, chart.png, maps.png")
