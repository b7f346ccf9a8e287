"""Two versions of the library on the same work, taking turns: ratios of times, not times.

    python tests/benchmarks/pair.py OTHER [--rounds 9] [--models mnist_cnn resnet20] [--against COMMIT]

OTHER is the root of another checkout; with ``--against`` it is made from a commit of this one, in a
temporary folder. Each version has a process of its own, a new one for each network; the two explain the
same inputs in turn, so that a machine that is busy for a while slows both. Printed is the median of the
ratios of a pair, this version over the other, and the middle half of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
LINES = [
    ("mnist_cnn", 1),
    ("mnist_cnn", 256),
    ("mnist_fc", 1),
    ("mnist_fc", 256),
    ("ResNet-20", 1),
    ("ResNet-20", 8),
    ("ResNet-20", 64),
    ("MobileNetV2", 1),
    ("MobileNetV2", 8),
    ("ResNet-50", 1),
    ("VGG-16", 1),
]
COMPOSITES = ("epsilon", "epsilon-plus", "epsilon-alpha2-beta1")


def serve() -> None:
    """Explain what is asked for on standard input, a line each, and print the seconds it took."""
    import numpy as np
    from models import MODELS, RANGE

    import numpylrp

    networks: dict = {}
    for line in sys.stdin:
        model, batch, composite, seconds = json.loads(line)
        if model not in networks:
            network = MODELS[model]().astype(np.float32)
            networks[model] = numpylrp.fuse(network, probe=0)[0]
        network = networks[model]
        low, high = network.metadata.get("input_range", RANGE)
        rng = np.random.default_rng(1)
        x = rng.uniform(low, high, (batch, *network.inputs["input"])).astype(np.float32)
        times: list[float] = []
        while not times or sum(times) < seconds:
            start = time.perf_counter()
            numpylrp.explain(network, x, composite=composite)
            times.append(time.perf_counter() - start)
        print(json.dumps(min(times)), flush=True)


class Version:
    """A process that explains with one version of the library."""

    def __init__(self, root: Path) -> None:
        path = os.pathsep.join([str(root), str(HERE.parent)])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE), "--serve"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, *what: object) -> float:
        """The time of one explanation."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(what), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def compare(other: Path, lines: list[tuple[str, int]], composites: list[str], rounds: int) -> None:
    """Print a ratio for each line and composite."""
    print("| network | batch | composite | this / other | middle half |\n|---|---|---|---|---|")
    for model in dict.fromkeys(model for model, _ in lines):
        versions = Version(ROOT), Version(other)
        for batch in (n for name, n in lines if name == model):
            for composite in composites:
                ratios = []
                for turn in range(rounds + 1):
                    order = versions if turn % 2 else versions[::-1]
                    found = {v: v.seconds(model, batch, composite, 0.1) for v in order}
                    ratios.append(found[versions[0]] / found[versions[1]])
                low, middle, high = statistics.quantiles(ratios[1:], n=4)  # the first is a warm-up
                spread = f"{low:.2f} to {high:.2f}"
                print(f"| {model} | {batch} | {composite} | {middle:.2f} | {spread} |", flush=True)
        for version in versions:
            version.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("other", nargs="?", type=Path)
    parser.add_argument("--against")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", nargs="+", default=[name for name, _ in LINES])
    parser.add_argument("--composites", nargs="+", default=COMPOSITES)
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    lines = [line for line in LINES if line[0] in args.models]
    with tempfile.TemporaryDirectory() as folder:
        other = args.other
        if args.against:
            other = Path(folder)
            archive = subprocess.run(
                ["git", "archive", args.against], cwd=ROOT, stdout=subprocess.PIPE, check=True
            )
            subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        if other is None:
            parser.error("give the root of another checkout, or --against COMMIT")
        compare(other.resolve(), lines, list(args.composites), args.rounds)


if __name__ == "__main__":
    main()
