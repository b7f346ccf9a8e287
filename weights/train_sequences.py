"""Train the two shipped networks for tokens: an LSTM and one block of attention, on planted tokens.

    pip install -e ".[train]"
    python weights/train_sequences.py                 # both, some minutes on one core
    python weights/train_sequences.py --evaluate      # accuracy of the files as they are
    python weights/train_sequences.py --score         # where relevance lies, and where it must

The task is `numpylrp.evaluate.planted`: two of 24 tokens decide the class, and where they stand is known.
Training sequences have the seed 1, the 10,000 test sequences the seed 2.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from numpylrp import Network, explain, load, save
from numpylrp.evaluate import planted, pointing_game, random_relevance, relevance_rank_accuracy

HERE = Path(__file__).parent
LENGTH, TOKENS, CLASSES = 24, 40, 4
STEPS, BATCH, RATE = {"tokens_lstm": 1500, "tokens_attention": 1500}, 128, 3e-3


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

    return {"tokens_lstm": LastState, "tokens_attention": Block}[name]()


def train(name: str, seed: int = 0) -> Network:
    """Train, and follow the module into a network of ours."""
    import torch

    from numpylrp.export import torch as exporter

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net = module(name)
    data = planted(STEPS[name] * BATCH, LENGTH, TOKENS, seed=1)
    x, y = torch.tensor(data.x), torch.tensor(data.target)
    chosen = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(chosen, RATE, total_steps=STEPS[name])
    for step in range(STEPS[name]):
        rows = slice(step * BATCH, (step + 1) * BATCH)
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
        "class_names": ["0 and 2", "0 and 3", "1 and 2", "1 and 3"],
        "training": {
            "script": "weights/train_sequences.py",
            "images": STEPS[name] * BATCH,
            "epochs": 1,
            "data": f"numpylrp.evaluate.planted({STEPS[name] * BATCH}, {LENGTH}, {TOKENS}, seed=1)",
            "seed": seed,
            "torch": torch.__version__,
        },
    }
    return network


def accuracy(network: Network) -> float:
    """The share of 10,000 test sequences that the network, in float32, gives their class."""
    test = planted(10_000, LENGTH, TOKENS, seed=2)
    found = network.astype(np.float32).forward(test.x).argmax(1)
    return float((found == test.target).mean())


def score(network: Network) -> None:
    """Print where the relevance of 500 sequences lies, by some composites."""
    test = planted(500, LENGTH, TOKENS, seed=3)
    network = network.astype(np.float64)
    maps = {"at random": random_relevance(network, test.x, test.target)}
    for name in ("lstm", "attnlrp", "cp-lrp"):
        maps[name] = explain(network, test.x, test.target.tolist(), composite=name).relevance
    for name, R in maps.items():
        rank, point = (f(R, test.mask).mean() for f in (relevance_rank_accuracy, pointing_game))
        print(f"  {name}: rank accuracy {rank:.2f}, pointing game {point:.2f}")


def main() -> None:
    """Train both, or measure the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="only measure the files")
    parser.add_argument("--score", action="store_true", help="only say where relevance lies")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the files")
    args = parser.parse_args()
    for name in STEPS:
        if args.score:
            print(name)
            score(load(args.out / f"{name}.h5"))
            continue
        if args.evaluate:
            print(f"{name}: {accuracy(load(args.out / f'{name}.h5')):.2%}")
            continue
        network = train(name)
        network.metadata["training"]["test_accuracy"] = accuracy(network)
        save(network, args.out / f"{name}.h5")
        print(f"{name}: {network.metadata['training']['test_accuracy']:.2%} of 10,000 sequences", flush=True)


if __name__ == "__main__":
    main()
