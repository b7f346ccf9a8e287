"""Results don't depend on pieces, threads or batches; convolutions against plain loops."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chain
from numpy.testing import assert_allclose, assert_array_equal
from strategies import convolutions, linear_layers, numbers, sample, seeds
from test_layers import plain_convolution

from numpylrp import engine, explain, im2col
from numpylrp.layers import Conv2D, MaxPool2D
from numpylrp.rules import AlphaBeta, Epsilon, Gamma

PIECES = (1, 500, 2**21)


class Setting:
    """Piece size and threads for a while; small work is spread, too."""

    def __init__(self, piece, threads):
        self.new, self.spread = (piece, threads), engine.spread

    def __enter__(self):
        self.old = im2col.PIECE_BYTES, engine.THREADS
        im2col.PIECE_BYTES, engine.THREADS = self.new
        im2col.spread = lambda count, size: self.spread(count, size, least=1)

    def __exit__(self, *error):
        im2col.PIECE_BYTES, engine.THREADS = self.old
        im2col.spread = self.spread


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("piece", PIECES)
@given(case=convolutions(kinds=(Conv2D,)), seed=seeds, batch=st.sampled_from([1, 3]))
def test_convolution_and_way_back_equal_plain_loops(piece, threads, case, seed, batch):
    layer, shape = case
    rng = np.random.default_rng(seed)
    x = numbers(rng, batch, *shape)
    pads = layer.windows.pads(shape[1:])
    expected = plain_convolution(x, layer.weight, None, layer.stride, pads, layer.dilation, layer.groups)
    with Setting(piece, threads):
        y = im2col.convolve(x, layer.weight, layer.windows, layer.groups)
        assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
        s = numbers(rng, *y.shape)
        back = im2col.convolve_adjoint(s, layer.weight, layer.windows, shape[1:], layer.groups)
    # the transposed map, pixel by pixel: what one pixel of 1 gives is what s is weighed with
    for at in itertools.islice(np.ndindex(*shape), seed % 7, None, 7):
        one = np.zeros((1, *shape))
        one[(0, *at)] = 1
        image = plain_convolution(one, layer.weight, None, layer.stride, pads, layer.dilation, layer.groups)
        assert_allclose(back[(slice(None), *at)], (s * image).sum((1, 2, 3)), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(), AlphaBeta()], ids=str)
@given(case=linear_layers, seed=seeds, piece=st.sampled_from(PIECES), threads=st.sampled_from([1, 2, 3]))
def test_rules_do_not_depend_on_pieces_and_threads(rule, case, seed, piece, threads):
    layer, shape = case
    x, y, R = sample(layer, shape, seed, 2)
    expected = layer.relprop(R, x, y, rule)
    with Setting(piece, threads):
        assert_allclose(layer.forward(x), y, rtol=1e-12, atol=1e-12)
        ours = layer.relprop(R, x, y, rule)
    assert_allclose(ours, expected, rtol=1e-10, atol=1e-12 * (1 + abs(expected).max()))


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_whole_explanations_do_not_depend_on_them(piece, threads):
    network = chain()
    x = np.random.default_rng(0).standard_normal((5, 2, 7, 8))
    for composite in ("epsilon-plus", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box"):
        expected = explain(network, x, composite=composite).relevance
        with Setting(piece, threads):
            for size in (5, 2):
                ours = explain(network, x, composite=composite, batch_size=size).relevance
                assert_allclose(ours, expected, rtol=0, atol=1e-10 * abs(expected).max())


def test_pooling_is_spread_without_a_difference():
    rng = np.random.default_rng(0)
    pool, x = MaxPool2D(3, 2, 1), np.round(rng.standard_normal((2, 5, 9, 8)), 1)
    y = pool.forward(x)
    R = rng.standard_normal(y.shape)
    expected = pool.relprop(R, x, y)
    with Setting(1, 3):
        assert_array_equal(pool.forward(x), y)
        assert_array_equal(pool.relprop(R, x, y), expected)


def test_blas_has_as_many_threads_as_before():
    functions = engine._blas()
    if functions is None:
        pytest.skip("NumPy has no OpenBLAS of its own here")
    get, set_to = functions
    before = get()
    try:
        for count in (1, 2):
            set_to(count)
            seen = []
            with Setting(2**21, 2):
                engine.each(lambda n: seen.append(get()), [(n,) for n in range(8)])  # noqa: B023
            assert seen == [1] * 8 and get() == count
            with pytest.raises(ZeroDivisionError), Setting(2**21, 2):
                engine.each(lambda n: 1 / n, [(n,) for n in range(4)])
            assert get() == count
    finally:
        set_to(before)


def test_callers_may_be_threads_themselves():
    functions = engine._blas()
    before = functions and functions[0]()
    rng = np.random.default_rng(0)
    layer, x = Conv2D(rng.standard_normal((8, 4, 3, 3)), padding=1), rng.standard_normal((4, 4, 20, 20))
    expected, results = layer.forward(x), {}

    def work(k):
        for _ in range(20):
            results[k] = layer.forward(x)

    with Setting(20_000, 2):
        callers = [threading.Thread(target=work, args=(k,)) for k in range(5)]
        for t in callers:
            t.start()
        for t in callers:
            t.join(60)
    assert len(results) == 5
    for y in results.values():
        assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    assert before == (functions and functions[0]())


def test_every_piece_is_done_once():
    for count, threads in ((1, 2), (7, 2), (100, 3)):
        done = np.zeros(count, int)
        with Setting(2**21, threads):
            engine.each(lambda n: np.add.at(done, n, 1), [(n,) for n in range(count)])  # noqa: B023
        assert (done == 1).all()
    covered = np.concatenate([np.arange(10)[part] for (part,) in engine.spread(10, 10**9)])
    assert covered.tolist() == list(range(10))
