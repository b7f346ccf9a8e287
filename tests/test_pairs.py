"""Pairs of inputs that make two samples similar."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from numpylrp import Network
from numpylrp.errors import LRPError
from numpylrp.layers import Dense, Embedding, GlobalAveragePool, ReLU, Transpose
from numpylrp.pairs import similarity_pairs


def test_a_linear_map_in_closed_form():
    """R_ij = x_i (W^T W)_ij y_j without biases, and the pairs sum to the dot product."""
    rng = np.random.default_rng(0)
    W, x, y = rng.standard_normal((4, 3)), rng.standard_normal((1, 3)), rng.standard_normal((1, 3))
    network = Network([("fc", Dense(W))], (3,))
    R = similarity_pairs(network, x, y, composite="epsilon", epsilon=0.0)
    assert_allclose(R, x[0][:, None] * (W.T @ W) * y[0], rtol=1e-11)
    assert_allclose(R.sum(), (W @ x[0]) @ (W @ y[0]), rtol=1e-11)


def test_sentences_of_different_length():
    rng = np.random.default_rng(1)
    network = Network(
        [
            ("embed", Embedding(rng.standard_normal((9, 4)))),
            ("fc", Dense(rng.standard_normal((5, 4)))),
            ("relu", ReLU()),
            ("turn", Transpose((1, 0))),
            ("mean", GlobalAveragePool()),
        ],
        (None,),
    )
    a, b = np.array([[1, 2, 3]]), np.array([[4, 5]])
    R = similarity_pairs(network, a, b, composite="epsilon", epsilon=0.0)
    assert R.shape == (3, 2)
    assert_allclose(R.sum(), network.forward(a)[0] @ network.forward(b)[0], rtol=1e-10)
    assert_allclose(similarity_pairs(network, b, a, composite="epsilon", epsilon=0.0), R.T, rtol=1e-12)
    with pytest.raises(LRPError, match="one each, not of 2"):
        similarity_pairs(network, np.array([[1, 2], [3, 4]]), b)
    with pytest.raises(LRPError, match="there is no input 'tokens'; there are input"):
        similarity_pairs(network, a, b, input="tokens")
    with pytest.raises(LRPError, match=r"must be an embedding \(K,\), not \(2, 2\)"):
        similarity_pairs(Network([("relu", ReLU())], (2, 2)), np.ones((1, 2, 2)), np.ones((1, 2, 2)))


def test_two_networks():
    """One for each sample: each has relevance by its own layers."""
    rng = np.random.default_rng(2)
    V, W, x, y = (rng.standard_normal(shape) for shape in ((3, 4), (3, 2), (1, 4), (1, 2)))
    one, other = Network([("a", Dense(V))], (4,)), Network([("b", Dense(W))], (2,))
    R = similarity_pairs((one, other), x, y, composite="epsilon", epsilon=0.0)
    assert_allclose(R, x[0][:, None] * (V.T @ W) * y[0], rtol=1e-11)
    with pytest.raises(LRPError, match="give one network or two, not 3"):
        similarity_pairs((one, other, one), x, y)
    with pytest.raises(LRPError, match="embeddings of 3 and 2 values have no dot product"):
        similarity_pairs((one, Network([("c", Dense(np.ones((2, 2))))], (2,))), x, y)
