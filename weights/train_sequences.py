"""Train the shipped networks for sequences: an LSTM and one block of attention on planted tokens, and an LSTM
on electrocardiograms that are drawn from a formula.

    pip install -e ".[train]"
    python weights/train_sequences.py                 # all, some minutes on one core
    python weights/train_sequences.py --evaluate      # accuracy of the files as they are
    python weights/train_sequences.py --score         # where relevance lies, and where it must

The tasks are `numpylrp.evaluate.planted` and `heartbeats`: where what decides the class stands is known.
Training sequences have the seed 1, the 10,000 test sequences the seed 2.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from numpylrp import Network, explain, load, save
from numpylrp.evaluate import (
    KnownTruth,
    heartbeats,
    planted,
    pointing_game,
    random_relevance,
    relevance_rank_accuracy,
)

HERE = Path(__file__).parent
LENGTH, TOKENS, CLASSES = 24, 40, 4
STEPS, BATCH, RATE = {"tokens_lstm": 1500, "tokens_attention": 1500, "heartbeats": 500}, 128, 3e-3
KEPT = {"heartbeats": 6400}
"""Samples that are drawn; each comes several times where that is less than steps times batch."""


def samples(name: str, count: int, seed: int) -> KnownTruth:
    """Samples of the task of a network."""
    return heartbeats(count, seed=seed) if name == "heartbeats" else planted(count, LENGTH, TOKENS, seed)


def module(name: str):
    """The network in PyTorch."""
    import torch
    from torch import nn

    class LastState(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(TOKENS, 16)
            self.lstm = nn.LSTM(16, 32, batch_first=True)
            self.out = nn.Linear(32, CLASSES)

        def forward(self, ids):
            return self.out(self.lstm(self.embed(ids))[0][:, -1])

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(TOKENS, 32)
            self.positions = nn.Parameter(0.1 * torch.randn(LENGTH, 32))
            self.token = nn.Parameter(0.1 * torch.randn(1, 1, 32))
            self.block = nn.TransformerEncoderLayer(32, 2, 64, 0.0, "gelu", batch_first=True, norm_first=True)
            self.norm = nn.LayerNorm(32)
            self.out = nn.Linear(32, CLASSES)

        def forward(self, ids):
            x = self.embed(ids) + self.positions
            x = torch.cat([self.token.expand(len(ids), -1, -1), x], 1)
            return self.out(self.norm(self.block(x)[:, 0]))

    class Beats(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv1d(1, 16, 9, 3, 4), nn.Conv1d(16, 16, 5, 3, 2)
            self.lstm = nn.LSTM(16, 16, batch_first=True)
            self.out = nn.Linear(16, 2)

        def forward(self, x):
            x = torch.relu(self.second(torch.relu(self.first(x.transpose(1, 2)))))
            return self.out(self.lstm(x.transpose(1, 2))[0][:, -1])

    return {"heartbeats": Beats, "tokens_lstm": LastState, "tokens_attention": Block}[name]()


def train(name: str, seed: int = 0) -> Network:
    """Train, and follow the module into a network of ours."""
    import torch

    from numpylrp.export import torch as exporter

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net = module(name)
    count = min(KEPT.get(name, STEPS[name] * BATCH), STEPS[name] * BATCH)
    data = samples(name, count, 1)
    x, y = torch.tensor(data.x), torch.tensor(data.target)
    x = x.float() if x.is_floating_point() else x
    order = torch.cat([torch.randperm(count) for _ in range(STEPS[name] * BATCH // count)])
    chosen = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(chosen, RATE, total_steps=STEPS[name])
    for step in range(STEPS[name]):
        rows = order[step * BATCH : (step + 1) * BATCH]
        loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
        chosen.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        chosen.step()
        schedule.step()
        if step % 500 == 499:
            print(f"{name}: step {step + 1}, loss {loss.item():.4f}", flush=True)
    network = exporter.convert(net.eval(), x[:2])
    network.metadata |= {
        "class_names": ["regular", "early beat"]
        if name == "heartbeats"
        else ["0 and 2", "0 and 3", "1 and 2", "1 and 3"],
        "training": {
            "script": "weights/train_sequences.py",
            "images": count,
            "epochs": STEPS[name] * BATCH // count,
            "data": f"numpylrp.evaluate.{'heartbeats' if name == 'heartbeats' else 'planted'}, seed 1",
            "seed": seed,
            "torch": torch.__version__,
        },
    }
    return network


def accuracy(network: Network, name: str) -> float:
    """The share of 10,000 test sequences that the network, in float32, gives their class."""
    test, network = samples(name, 10_000, 2), network.astype(np.float32)
    rows = [slice(n, n + 500) for n in range(0, 10_000, 500)]
    found = np.concatenate([network.forward(test.x[r]).argmax(1) for r in rows])
    return float((found == test.target).mean())


def score(network: Network, name: str) -> None:
    """Print where the relevance of 500 sequences lies, by some composites."""
    test, network = samples(name, 1000, 3), network.astype(np.float64)
    rows = np.flatnonzero(test.mask.any(1))[:500]
    x, target, mask = test.x[rows], test.target[rows], test.mask[rows]
    maps = {"at random": random_relevance(network, x, target)}
    for composite in ("lstm", "attnlrp", "cp-lrp"):
        maps[composite] = explain(network, x, target.tolist(), composite=composite).relevance
    for composite, R in maps.items():
        R = R.reshape(mask.shape)
        rank, point = (f(R, mask).mean() for f in (relevance_rank_accuracy, pointing_game))
        print(f"  {composite}: rank accuracy {rank:.2f}, pointing game {point:.2f}")


def main() -> None:
    """Train them, or measure the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="only measure the files")
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="NAME")
    parser.add_argument("--score", action="store_true", help="only say where relevance lies")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the files")
    args = parser.parse_args()
    for name in args.only or STEPS:
        if args.score:
            print(name)
            score(load(args.out / f"{name}.h5"), name)
            continue
        if args.evaluate:
            print(f"{name}: {accuracy(load(args.out / f'{name}.h5'), name):.2%}")
            continue
        network = train(name)
        network.metadata["training"]["test_accuracy"] = accuracy(network, name)
        save(network, args.out / f"{name}.h5")
        print(f"{name}: {network.metadata['training']['test_accuracy']:.2%} of 10,000 sequences", flush=True)


if __name__ == "__main__":
    main()
