"""numpylrp, zennit and captum side by side: time, memory, and whether they agree.

    pip install -e ".[peers]"
    python tests/benchmarks/run.py                         # everything, about an hour on two cores
    python tests/benchmarks/run.py --models VGG-16 --batch 1
    python tests/benchmarks/run.py --write                 # and writes the tables into README.md beside this

Times are whole explanations (forward and back). The libraries take turns, A B C A B C ..., in one
process, and what is printed is the median of their ratio over the rounds, with its quartiles:
absolute times of a shared machine mean little. Peak memory is that of a process of its own.

Unless batches or dtypes are asked for, these are every composite in float32 at batch 1 and 8 (1 and
256 for the MNIST networks), and one of them in float64 and at batch 64, where memory allows. At the
end, whole runs (10,000 samples through an MNIST network, 1,000 through ResNet-20), and what a sample
takes at batch 64 compared with batch 8.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from models import MODELS, RANGE

from numpylrp import explain, fuse
from numpylrp.files import write_between
from numpylrp.layers import Conv2D, Dense
from numpylrp.wiring import sample_shapes

ENOUGH = 2.0
"""Seconds that rounds take at least: small networks get more of them."""

WIDE = "epsilon-plus-flat"
"""The composite of the other dtype and batch size."""

COMPOSITES = ("epsilon", "epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon-alpha2-beta1")
PAGE = Path(__file__).with_name("README.md")
MARKS = ("<!-- benchmark: tests/benchmarks/run.py -->", "<!-- end of benchmark -->")


def samples(network, batch: int) -> np.ndarray:
    """Random inputs within the bounds of the z^B rule."""
    rng = np.random.default_rng(1)
    low, high = network.metadata.get("input_range", RANGE)
    x = rng.uniform(low, high, (batch, *network.inputs["input"]))
    return x.astype(network.dtype)


def with_numpylrp(network, composite: str):
    """A function that explains a batch with numpylrp."""
    fused = fuse(network, probe=0)[0]
    return lambda x: explain(fused, x, 0, composite=composite, batch_size=len(x)).relevance


def with_zennit(network, composite: str):
    """A function that explains a batch with zennit, batch normalization merged by its canonizer."""
    import torch
    from zennit import composites as zc
    from zennit import rules as zr
    from zennit import types as zt
    from zennit.canonizers import SequentialMergeBatchNorm

    from numpylrp.validate.peers import AsTorch, ZennitSum

    model = AsTorch(network, ZennitSum)
    canonizers = [SequentialMergeBatchNorm()]
    low, high = (torch.full((1, *network.inputs["input"]), float(v)) for v in network.metadata["input_range"])
    low, high = (v.to(next(model.parameters()).dtype) for v in (low, high))
    chosen = {
        "epsilon": lambda: zc.LayerMapComposite(
            [(zt.Linear, zr.Epsilon()), *zc.layer_map_base()], canonizers=canonizers
        ),
        "epsilon-plus": lambda: zc.EpsilonPlus(canonizers=canonizers),
        "epsilon-plus-flat": lambda: zc.EpsilonPlusFlat(canonizers=canonizers),
        "epsilon-gamma-box": lambda: zc.EpsilonGammaBox(low=low, high=high, canonizers=canonizers),
        "epsilon-alpha2-beta1": lambda: zc.EpsilonAlpha2Beta1(canonizers=canonizers),
    }[composite]()

    def run(x):
        t = torch.from_numpy(x).requires_grad_()
        with chosen.context(model) as ready:
            y = ready(t)
            seed = torch.zeros_like(y)
            seed[:, 0] = y[:, 0].detach()
            (R,) = torch.autograd.grad(y, t, grad_outputs=seed)
        return R.numpy()

    return run


def with_captum(network, composite: str):
    """A function that explains a batch with captum; it has the epsilon rule of these composites."""
    if composite != "epsilon":
        return None
    import torch
    from captum.attr import LRP
    from captum.attr._utils.custom_modules import Addition_Module
    from captum.attr._utils.lrp_rules import EpsilonRule, IdentityRule

    from numpylrp.validate.peers import AsTorch

    fused = fuse(network, probe=0)[0]  # captum has no canonizer
    model = AsTorch(fused, Addition_Module)
    lrp = LRP(model)

    def run(x):
        for module in model.steps.values():  # each time: it takes the rules off again
            relu6 = isinstance(module, torch.nn.ReLU6)  # the one activation that it doesn't know
            module.rule = IdentityRule() if relu6 else EpsilonRule(1e-6)
        return lrp.attribute(torch.from_numpy(x), target=0).detach().numpy()

    return run


LIBRARIES = {"numpylrp": with_numpylrp, "zennit": with_zennit, "captum": with_captum}


def products(network, composite: str) -> float:
    """Multiplications that the method needs for one sample: forward, denominators, and back."""
    total, first = 0.0, True
    for node in fuse(network, probe=0)[0].nodes:
        layer = node.layer
        if not isinstance(layer, (Conv2D, Dense)):
            continue
        size = np.prod(network.shapes[node.name]) * layer.weight[0].size
        times = 2  # forward and back
        if isinstance(layer, Conv2D) and composite != "epsilon":
            times = {"epsilon-alpha2-beta1": 4}.get(composite, 3)  # the output is the sum of its denominators
            if first and composite == "epsilon-gamma-box":
                times = 7  # three products for the denominators, three back
            if first and composite == "epsilon-alpha2-beta1":
                times = 8  # inputs of both signs
            if first and composite == "epsilon-plus":
                times = 5
            if first and composite == "epsilon-plus-flat":
                times = 2
        first = False
        total += times * size
    return float(total)


def peak_of_machine(dtype) -> float:
    """Multiply-adds a second of a large matrix product, the best of several."""
    a = np.random.default_rng(0).standard_normal((2048, 2048)).astype(dtype)
    best = 0.0
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        best = max(best, 2048**3 / (time.perf_counter() - start))
    return best


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Smallest cosine of two libraries' heatmaps."""
    a, b = a.reshape(len(a), -1).astype(float), b.reshape(len(b), -1).astype(float)
    return float(((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))).min())


def compare(model: str, composite: str, batch: int, dtype: str, rounds: int) -> dict | None:
    """One line of the table; None where memory is too small for it."""
    network = MODELS[model]().astype(dtype)
    if not fits(network, batch):
        return None
    x = samples(network, batch)
    runs = {name: made for name, make in LIBRARIES.items() if (made := make(network, composite)) is not None}
    first = {name: run(x) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    begun = time.perf_counter()
    while len(times["numpylrp"]) < rounds or time.perf_counter() - begun < ENOUGH:
        for name, run in runs.items():
            start = time.perf_counter()
            run(x)
            times[name].append(time.perf_counter() - start)
    line = {"model": model, "composite": composite, "batch": batch, "dtype": dtype}
    ours = np.array(times["numpylrp"])
    line["seconds"] = float(np.median(ours))
    for name in runs:
        if name != "numpylrp":
            line[name] = [float(q) for q in np.percentile(ours / times[name], (25, 50, 75))]
            line[f"cosine {name}"] = agreement(first["numpylrp"], first[name])
    line["share of peak"] = (
        products(network, composite) * batch / line["seconds"] / peak_of_machine(network.dtype)
    )
    return line


def memory(library: str, model: str, composite: str, batch: int, dtype: str) -> None:
    """Explain twice and print the peak memory of this process in MB."""
    network = MODELS[model]().astype(dtype)
    run = LIBRARIES[library](network, composite)
    x = samples(network, batch)
    del network
    run(x)
    run(x)
    # not ru_maxrss, which a child inherits from its parent
    print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024)


def peak_memory(library: str, line: dict) -> float | None:
    """The same in a process of its own."""
    call = [sys.executable, __file__, "--memory-of", library, line["model"], line["composite"]]
    done = subprocess.run([*call, str(line["batch"]), line["dtype"]], capture_output=True, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None


def throughput(model: str, count: int, composite: str = WIDE) -> str:
    """A run over many samples: ours chooses its batches, zennit takes the best of three sizes."""
    network = MODELS[model]().astype("float32")
    x = samples(network, count)
    fused = fuse(network, probe=0)[0]
    other = with_zennit(network, composite)

    def ours() -> None:
        explain(fused, x, 0, composite=composite)

    def theirs(size: int):
        def run() -> None:
            for n in range(0, count, size):
                other(x[n : n + size])

        return run

    def seconds(run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    rest = {size: theirs(size) for size in (32, 128, 512)}
    mine, best = [], []
    for _ in range(2):
        mine.append(seconds(ours))
        best.append(min(seconds(run) for run in rest.values()))
    ratio = float(np.median(np.divide(mine, best)))
    return (
        f"- {count:,} samples through {model}, {composite}: {count / min(mine):,.0f} images per second, "
        f"zennit {count / min(best):,.0f} with the best of three batch sizes (time ratio {ratio:.2f})"
    )


def fits(network, batch: int) -> bool:
    """Whether zennit's peak, some four times the activations, fits into this machine."""
    values = sum(np.prod(shape) for shape in sample_shapes(network.nodes, network.inputs).values())
    free = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) * 1024
    return bool(4 * batch * values * network.dtype.itemsize < 0.9 * free)


def lines(models, composites, batches, dtypes) -> Iterator[tuple[str, str, int, str]]:
    """What is to be measured."""
    for model in models:
        usual = (1, 256) if model.startswith("mnist") else (1, 8)
        for composite in composites:
            if model == "mnist_fc" and composite == "epsilon-gamma-box":
                continue  # zennit's gives gamma and the box to convolutions only: not the same work
            yield from ((model, composite, b, d) for b in batches or usual for d in dtypes or ("float32",))
        if not batches and not dtypes and WIDE in composites:
            yield model, WIDE, usual[1], "float64"
            if 64 not in usual:
                yield model, WIDE, 64, "float32"


def scaling(model: str, composite: str) -> str:
    """What a sample takes of ours at batch 64, as a ratio to batch 8."""
    network = fuse(MODELS[model]().astype("float32"), probe=0)[0]
    x = samples(network, 64)

    def seconds(batch: int) -> float:
        start = time.perf_counter()
        for n in range(0, 64, batch):
            explain(network, x[n : n + batch], 0, composite=composite)
        return time.perf_counter() - start

    seconds(8)
    few, many, again, last = (seconds(batch) for batch in (8, 64, 64, 8))
    return f"{model} {(many + again) / (few + last):.2f}"


RUNS = {"mnist_cnn": 10_000, "ResNet-20": 1_000}
"""Whole runs: how many samples."""


def row(line: dict) -> str:
    """A line of the table in Markdown."""

    def ratio(name: str) -> str:
        if name not in line:
            return "-"
        low, mid, high = line[name]
        return f"**{mid:.2f}** ({low:.2f} to {high:.2f})"

    cosine = min(line[k] for k in line if k.startswith("cosine"))
    mem = " / ".join(
        "-" if line.get(f"memory {n}") is None else f"{line[f'memory {n}']:.0f}" for n in LIBRARIES
    )
    return (
        f"| {line['model']} | {line['composite']} | {line['batch']} | {line['dtype']} | {ratio('zennit')} "
        f"| {ratio('captum')} | {line['share of peak']:.0%} | {mem} | {cosine:.4f} |"
    )


COLUMNS = (
    "network",
    "composite",
    "batch",
    "dtype",
    "time / zennit",
    "time / captum",
    "share of matrix-product peak",
    "peak MB: numpylrp / zennit / captum",
    "least cosine",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--composites", nargs="+", choices=COMPOSITES, default=COMPOSITES)
    parser.add_argument(
        "--batch", nargs="+", type=int, help="default 1 and 8; for the MNIST networks 1 and 256"
    )
    parser.add_argument("--dtype", nargs="+", choices=("float32", "float64"))
    parser.add_argument("--rounds", type=int, default=5, help="at least; default 5")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument(
        "--write", action="store_true", help="write the table into README.md beside this file"
    )
    parser.add_argument("--memory-of", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        library, model, composite, batch, dtype = args.memory_of
        memory(library, model, composite, int(batch), dtype)
        return
    rows = []
    print(HEAD)
    for model, composite, batch, dtype in lines(args.models, args.composites, args.batch, args.dtype):
        line = compare(model, composite, batch, dtype, args.rounds)
        if line is None:
            rows.append(
                f"| {model} | {composite} | {batch} | {dtype} | too large for this machine's memory"
                + " |" * 5
            )
            print(rows[-1])
            continue
        if not args.no_memory:
            for name in LIBRARIES:
                if name == "numpylrp" or name in line:
                    line[f"memory {name}"] = peak_memory(name, line)
        rows.append(row(line))
        print(rows[-1], flush=True)
    runs = [throughput(model, count) for model, count in RUNS.items() if model in args.models]
    if not args.batch and not args.dtype and WIDE in args.composites:
        names = [model for model in args.models if model != "VGG-16-BN"]  # fused, it is VGG-16
        ratios = ", ".join(scaling(model, WIDE) for model in names)
        runs.append(f"- what a sample takes at batch 64, as a ratio to batch 8, {WIDE}: {ratios}")
    for text in runs:
        print(text)
    if args.write:
        body = "\n".join([HEAD, *rows, "", *runs])
        write_between(MARKS, body, PAGE)


if __name__ == "__main__":
    main()
