"""A BERT of six layers on 128 tokens: PyTorch's forward and backward pass beside our explanations.

    python tests/benchmarks/bert.py

Needs torch and transformers (extra `peers`). The weights are random, the sizes those of MiniLM-L6.
"""

import time

import numpy as np
import torch
import transformers

from numpylrp import explain
from numpylrp.export import torch as exporter


def least(function, repeats=7):
    """The least of some times, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    bert = transformers.BertModel(config, add_pooling_layer=False).eval()

    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = bert

        def forward(self, ids):
            return self.bert(input_ids=ids).last_hidden_state

    ids = torch.randint(0, config.vocab_size, (1, 128))
    network = exporter.convert(Tokens(), ids)
    vectors = bert.embeddings.word_embeddings(ids).detach()

    def forward_and_backward():
        x = vectors.clone().requires_grad_(True)
        bert(inputs_embeds=x).last_hidden_state[:, 0].sum().backward()

    theirs = least(forward_and_backward)
    print(f"PyTorch, {torch.get_num_threads()} threads: forward and backward {1000 * theirs:.0f} ms")
    seed = np.zeros((1, 128, config.hidden_size), np.float32)
    seed[:, 0] = 1
    for preset in ("attnlrp", "cp-lrp"):
        ours = least(lambda name=preset: explain(network, ids.numpy(), seed=seed, composite=name))
        print(f"{preset}: {1000 * ours:.0f} ms, {ours / theirs:.2f} times that")


if __name__ == "__main__":
    main()
