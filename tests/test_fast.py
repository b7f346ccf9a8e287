"""The fast path against the plain one: whatever the pieces, threads and batches."""

import gc
import itertools
import multiprocessing
import os
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chain
from numpy.testing import assert_allclose, assert_array_equal
from strategies import convolutions, linear_layers, numbers, sample, seeds
from test_layers import plain_convolution

from numpylrp import explain
from numpylrp.fast import Fast, convolution, kept, plans, pooling, products, threads
from numpylrp.layers import Conv1D, Conv2D, Dense, MaxPool2D
from numpylrp.rules import AlphaBeta, Epsilon, Gamma, ZPlus
from numpylrp.windows import Windows
from numpylrp.wiring import Node


def fast_forward(layer, x, rule=None):
    """The output on the fast path, and the path, which keeps denominators."""
    path = Fast({} if rule is None else {"layer": rule})
    return path.forward(Node("layer", layer, ("input",)), x), path


def fast_relprop(layer, R, x, y, rule=None, path=None):
    """Relevance on the fast path."""
    return (path or Fast({})).relprop(Node("layer", layer, ("input",)), R, x, y, rule)


PIECES = (1, 500, 2**21)


class Setting:
    """Piece size and threads for a while; small work is spread, too."""

    def __init__(self, piece, count):
        few = piece // 8 + 3
        self.spread = threads.spread
        self.new = (
            (convolution, "PIECE_BYTES", piece),
            (threads, "THREADS", count),
            (pooling, "PLANES", few),
            (convolution, "COLUMNS", few),
            (convolution, "SMALL", few),
            (convolution, "THREAD_WORK", few),
            (convolution, "BY_COLUMNS", few),
            (plans, "WALK", few),
        )

    def __enter__(self):
        self.old = [(module, name, getattr(module, name)) for module, name, _ in self.new]
        for setting in self.new:
            setattr(*setting)
        convolution.spread = products.spread = lambda count, size: self.spread(count, size, least=1)

    def __exit__(self, *error):
        for setting in self.old:
            setattr(*setting)
        convolution.spread = products.spread = self.spread


BORDERS = [((0, 0), (0, 0)), ((1, 2), (2, 0)), ((0, 3), (1, 4)), ((2, 0), (1, 1)), ((1, 1), (3, 3))]


@pytest.mark.parametrize("pads", BORDERS, ids=str)
@pytest.mark.parametrize("apart", [1, 2, 3])
@pytest.mark.parametrize("width", [2, 3, 5])
def test_columns_of_the_kernel_may_lie_apart(width, apart, pads):
    rng = np.random.default_rng(width)
    x, weight = numbers(rng, 3, 8, 7, 13), numbers(rng, 2, 8, 2, width)
    for stride, piece in itertools.product((1, 2), (500, 2**21)):  # a row, or all images in one piece
        g = Windows((2, width), (stride, 1), (3, apart), pads)
        expected = plain_convolution(x, weight, None, g.stride, pads, g.dilation, 1)
        offset = numbers(rng, *expected.shape[1:])
        with Setting(piece, 2), pytest.MonkeyPatch.context() as patch:
            patch.setattr(convolution, "BY_COLUMNS", 1)
            patch.setattr(convolution, "FEW_OUTPUTS", 100)
            possible = min(pads[1]) <= apart * (width - 1)
            assert convolution.by_columns(weight, g, 1, pads, expected.shape[2:]) == possible
            y = convolution.convolve(x, weight, g)
            assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
            for bias in (offset, offset[:, :1, :1], offset[:, 0, 0]):
                more = expected + (bias[:, None, None] if bias.ndim == 1 else bias)
                assert_allclose(convolution.convolve(x, weight, g, 1, bias), more, rtol=1e-10, atol=1e-12)
            maps = convolution.convolve(x, weight, g, maps=2)
            assert_array_equal(maps, np.stack(np.split(y, 2, 1)))
            short = convolution.convolve(x.astype("f4"), weight.astype("f4"), g)
            assert short.dtype == np.float32
            assert_allclose(short, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((3, 3), (3, 3)), ((0, 0), (4, 1))], ids=str)
def test_large_convolutions_of_any_padding(pads):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((8, 64, 21, 42)), rng.standard_normal((8, 64, 3, 3))
    y = convolution.convolve(x, weight, Windows((3, 3), padding=pads))
    assert weight.size * y[0, 0].size >= convolution.BY_COLUMNS
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    assert_allclose(y, np.einsum("nchwij,ocij->nohw", seen, weight, optimize=True), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("piece", PIECES)
@given(case=convolutions(kinds=(Conv2D,)), seed=seeds, batch=st.sampled_from([1, 3]))
def test_convolution_and_way_back_equal_plain_loops(piece, count, case, seed, batch):
    layer, shape = case
    rng = np.random.default_rng(seed)
    x = numbers(rng, batch, *shape)
    pads = layer.windows.pads(shape[1:])
    expected = plain_convolution(x, layer.weight, None, layer.stride, pads, layer.dilation, layer.groups)
    offset = numbers(rng, len(layer.weight), *expected.shape[2:])
    with Setting(piece, count):
        y = convolution.convolve(x, layer.weight, layer.windows, layer.groups)
        assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
        for bias in (offset, offset[:, 0, 0]):
            more = convolution.convolve(x, layer.weight, layer.windows, layer.groups, bias)
            moved = expected + (bias if bias.ndim == 3 else bias[:, None, None])
            assert_allclose(more, moved, rtol=1e-10, atol=1e-12)
        s = numbers(rng, *y.shape)
        back = convolution.convolve_adjoint(s, layer.weight, layer.windows, shape[1:], layer.groups)
    # the transposed map, pixel by pixel: what one pixel of 1 gives is what s is weighed with
    for at in itertools.islice(np.ndindex(*shape), seed % 7, None, 7):
        one = np.zeros((1, *shape))
        one[(0, *at)] = 1
        image = plain_convolution(one, layer.weight, None, layer.stride, pads, layer.dilation, layer.groups)
        assert_allclose(back[(slice(None), *at)], (s * image).sum((1, 2, 3)), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(), AlphaBeta()], ids=str)
@given(case=linear_layers, seed=seeds, piece=st.sampled_from(PIECES), count=st.sampled_from([1, 2, 3]))
def test_rules_do_not_depend_on_pieces_and_threads(rule, case, seed, piece, count):
    layer, shape = case
    x, y, R = sample(layer, shape, seed, 2)
    expected = layer.relprop(R, x, y, rule)
    with Setting(piece, count):
        ours_y, path = fast_forward(layer, x, rule)
        assert_allclose(ours_y, y, rtol=1e-12, atol=1e-11)
        ours = fast_relprop(layer, R, x, y, rule, path)
    assert_allclose(ours, expected, rtol=1e-10, atol=1e-12 * (1 + abs(expected).max()))


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_whole_explanations_do_not_depend_on_them(piece, count):
    network = chain()
    x = np.random.default_rng(0).standard_normal((5, 2, 7, 8))
    for composite in ("epsilon-plus", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box"):
        expected = explain(network, x, composite=composite)
        with Setting(piece, count):
            for size in (5, 2):
                ours = explain(network, x, composite=composite, batch_size=size)
                close = {"rtol": 0, "atol": 1e-10 * abs(expected.relevance).max()}
                assert_allclose(ours.relevance, expected.relevance, **close)
                assert_array_equal(ours.target, expected.target)
                for step, other in zip(ours.steps.values(), expected.steps.values()):
                    assert_allclose(step.received, other.received, rtol=1e-10, atol=1e-10)
                    assert_allclose(step.sent, other.sent, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("padding", [((0, 4), (0, 1)), ((4, 0), (2, 3)), ((5, 5), (0, 0))])
def test_pieces_may_see_nothing_but_padding(padding):
    x, w = np.ones((2, 2, 1, 3)), np.arange(1.0, 5).reshape(2, 2, 1, 1)
    for weight in (w, np.ones((2, 2, 2, 1)), w[:, :1]):
        groups = 2 // weight.shape[1]
        g = Windows(weight.shape[2:], padding=padding)
        expected = plain_convolution(x, weight, None, (1, 1), padding, (1, 1), groups)
        with Setting(1, 1):
            assert_allclose(convolution.convolve(x, weight, g, groups), expected, rtol=1e-10)


def test_the_way_back_to_few_channels_is_cut_by_rows():
    rng = np.random.default_rng(0)
    for stride, dilation, padding in (((1, 1), (1, 1), 1), ((2, 3), (1, 2), 2), ((3, 1), (2, 1), 0)):
        weight, pads = rng.standard_normal((13, 3, 3, 2)), ((padding, padding),) * 2
        g = Windows((3, 2), stride, dilation, pads)
        x = rng.standard_normal((2, 3, 61, 9))
        s = rng.standard_normal((2, 13, *g.output_size(x.shape[2:])))
        image = np.stack(
            [plain_convolution(one, weight, None, stride, pads, dilation, 1)[0] for one in x[:, None]]
        )
        with Setting(500, 3):
            back = convolution.convolve_adjoint(s, weight, g, x.shape[2:])
        # of a linear map and its transposed: <A x, s> = <x, A' s>, sample by sample
        assert_allclose((back * x).sum((1, 2, 3)), (image * s).sum((1, 2, 3)), rtol=1e-10)


@given(
    seed=seeds, outputs=st.sampled_from([1, 3, 600]), lead=st.sampled_from([(), (1,), (6, 7), (8, 9), (0,)])
)
def test_matrix_products_are_cut(seed, outputs, lead):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((*lead, 500)), rng.standard_normal((500, outputs))
    for matrix in (w, np.asfortranarray(w)):
        assert_allclose(products.matmul(x, matrix), x @ matrix, rtol=1e-10, atol=1e-10)


def test_what_is_derived_from_an_array_lives_as_long():
    calls = []

    def twice(array, factor):
        calls.append(factor)
        return factor * array

    array = np.arange(3.0)
    before = len(kept._derived)
    for _ in range(2):
        assert kept.derived(array, twice, 2).tolist() == [0, 2, 4]
        assert kept.derived(array, twice, 3).tolist() == [0, 3, 6]
    assert calls == [2, 3] and len(kept._derived) == before + 2
    del array
    assert len(kept._derived) == before


@pytest.mark.parametrize("pool", [MaxPool2D(3, 2, 1), MaxPool2D(2), MaxPool2D((1, 2), (2, 3))], ids=str)
def test_pooling_is_spread_without_a_difference(pool):
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((2, 5, 9, 8)), 1)
    y = pool.forward(x)
    R = rng.standard_normal(y.shape)
    expected = pool.relprop(R, x, y)
    with Setting(1, 3):
        assert_array_equal(fast_forward(pool, x)[0], y)
        assert_allclose(fast_relprop(pool, R, x, y), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rule", [Gamma(0.5), ZPlus(), ZPlus(bias=False), AlphaBeta(), AlphaBeta(bias=False)])
@pytest.mark.parametrize("negative", [True, False])
def test_the_forward_pass_of_a_rule_is_that_of_the_layer(rule, bias, negative):
    """Its output, and the denominators that it hands on; relevance is the same with them."""
    rng = np.random.default_rng(0)
    layers = [
        (Conv2D(rng.standard_normal((4, 3, 3, 2)), padding=((1, 0), (2, 1)), stride=2), (3, 6, 7)),
        (Conv2D(rng.standard_normal((4, 3, 1, 1))), (3, 5, 4)),
        (
            Conv2D(rng.standard_normal((4, 3, 3, 3)), padding=1, tap_bias=rng.standard_normal((4, 3, 3))),
            (3, 4, 5),
        ),
        (Conv2D(rng.standard_normal((4, 2, 3, 3)), groups=2), (4, 5, 6)),
        (Conv1D(rng.standard_normal((4, 3, 3))), (3, 9)),
        (Dense(rng.standard_normal((4, 5))), (2, 5)),
    ]
    for layer, shape in layers:
        if bias:
            layer = replace(layer, bias=rng.standard_normal(4))
        x = rng.standard_normal((3, *shape))
        x = x if negative else np.maximum(x, 0)
        y, path = fast_forward(layer, x, rule)
        z = path.denominators.get("layer")
        assert_allclose(y, layer.forward(x), rtol=1e-12, atol=1e-12)
        if z is None:  # where nothing is saved: mixed signs, groups, single pixels
            assert negative or getattr(layer, "groups", 1) > 1 or layer.weight[0, 0].size == 1
            continue
        assert len(z) == (2 if rule == AlphaBeta() or rule == AlphaBeta(bias=False) else 1)
        R, steps = rng.standard_normal(y.shape), {}
        alone = layer.relprop(R, x, y, rule, steps.update)
        for known, mark in zip(z, "+-"):
            assert known.shape == y.shape
            assert_allclose(known, steps[f"z{mark}"], rtol=1e-12, atol=1e-12)
        assert_allclose(fast_relprop(layer, R, x, y, rule, path), alone, rtol=1e-10, atol=1e-12)


def test_a_rule_with_other_shares_does_not_inherit_the_forward_pass():
    class Halved(AlphaBeta):
        def shares(self, layer, R, x, y):
            for share in super().shares(layer, R, x, y):
                yield share._replace(parts=[part._replace(bias=None) for part in share.parts])

    dense, x = Dense([[1.0, -2.0]], [3.0]), np.ones((1, 2))
    assert fast_forward(dense, x, AlphaBeta())[1].denominators
    _, path = fast_forward(dense, x, Halved())
    assert not path.denominators
    y, R = dense.forward(x), np.array([[6.0]])
    assert_allclose(fast_relprop(dense, R, x, y, Halved(), path), dense.relprop(R, x, y, Halved()))


@given(case=linear_layers, seed=seeds, rule=st.sampled_from([AlphaBeta(), AlphaBeta(1.5, 0.5), Gamma(0.3)]))
def test_shares_side_by_side_equal_each_alone(case, seed, rule):
    layer, shape = case
    x, y, R = sample(layer, shape, seed, 2)
    steps = {}
    together = fast_relprop(layer, R, x, y, rule)
    alone = layer.relprop(R, x, y, rule, steps.update)
    assert_allclose(together, alone, rtol=1e-10, atol=1e-12 * (1 + abs(alone).max()))
    assert {"z+", "s+", "c+"} <= steps.keys()
    if isinstance(rule, AlphaBeta):
        assert {"z-", "s-", "c-"} <= steps.keys()


def test_blas_has_as_many_threads_as_before():
    functions = threads._blas()
    if functions is None:
        pytest.skip("NumPy has no OpenBLAS of its own here")
    get, set_to = functions
    before = get()
    try:
        for count in (1, 2):
            set_to(count)
            seen = []
            with Setting(2**21, 2):
                threads.each(lambda n: seen.append(get()), [(n,) for n in range(8)])  # noqa: B023
            assert seen == [1] * 8 and get() == count
            with pytest.raises(ZeroDivisionError), Setting(2**21, 2):
                threads.each(lambda n: 1 / n, [(n,) for n in range(4)])
            assert get() == count
            seen = []
            explain(chain(), np.ones((1, 2, 7, 8)), seed=lambda y, t: seen.append(get()) or y)  # noqa: B023
            assert seen == [1] and get() == count
    finally:
        set_to(before)


def at_once(work, count):
    """``work(k)`` for each k, on a thread of its own."""
    callers = [threading.Thread(target=work, args=(k,)) for k in range(count)]
    for t in callers:
        t.start()
    for t in callers:
        t.join(120)


def test_callers_may_be_threads_themselves():
    functions = threads._blas()
    before = functions and functions[0]()
    rng = np.random.default_rng(0)
    layer, x = Conv2D(rng.standard_normal((8, 4, 3, 3)), padding=1), rng.standard_normal((4, 4, 20, 20))
    expected, results = layer.forward(x), {}

    def work(k):
        for _ in range(20):
            results[k] = fast_forward(layer, x)[0]

    with Setting(20_000, 2):
        at_once(work, 5)
    assert len(results) == 5
    for y in results.values():
        assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    assert before == (functions and functions[0]())


needs_threads = pytest.mark.skipif(
    threads._blas() is None, reason="work is not spread: NumPy has no OpenBLAS of its own here"
)


@needs_threads
def test_after_an_error_no_more_pieces_are_begun():
    begun = []

    def work(n):
        begun.append(n)
        time.sleep(0.01)
        if n == 3:
            raise KeyError(n)

    with Setting(2**21, 2), pytest.raises(KeyError):
        threads.each(work, [(n,) for n in range(100)])
    assert set(range(4)) <= set(begun) and len(begun) < 100
    with Setting(2**21, 2):  # and the threads are there for the next
        threads.each(begun.append, [(None,)] * 5)
    assert begun.count(None) == 5


@needs_threads
def test_errors_keep_nothing_alive():
    both, seen = threading.Barrier(2), []

    def work(big):
        both.wait(30)
        seen.append(weakref.ref(big))
        raise KeyError

    def spread_work():
        with Setting(2**21, 2), pytest.raises(KeyError):
            threads.each(work, [(np.ones(3),), (np.ones(3),)])

    gc.collect()
    gc.disable()
    try:
        spread_work()
        assert len(seen) == 2
        wait_for(lambda: all(gone() is None for gone in seen))
    finally:
        gc.enable()


@needs_threads
@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="it is no context variable there")
def test_pieces_see_the_error_state_of_the_caller():
    both, seen = threading.Barrier(2), []

    def work(n):
        both.wait(30)
        seen.append(np.geterr()["divide"])

    with Setting(2**21, 2), np.errstate(divide="raise"):
        threads.each(work, [(0,), (1,)])
    assert seen == ["raise"] * 2


def wait_for(what):
    """Until it is so; an error after ten seconds."""
    deadline = time.monotonic() + 10
    while not what() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert what()


def test_threads_hold_on_to_nothing():
    big = np.ones(10)
    gone = weakref.ref(big)

    def spread_work(big):
        with Setting(2**21, 2):
            threads.each(lambda n: (time.sleep(0.01), big[n]), [(n,) for n in range(4)])

    spread_work(big)
    del big
    wait_for(lambda: gone() is None)


def threads_of_pieces():
    """The thread of each of some pieces, and of the pieces within them."""
    both, outer, inner = threading.Barrier(2), {}, {}

    def within(n, m):
        inner[n, m] = threading.get_ident()
        time.sleep(0.01)

    def work(n):
        outer[n] = threading.get_ident()
        both.wait(30)
        threads.each(within, [(n, m) for m in range(4)])

    with Setting(2**21, 3):
        threads.each(work, [(0,), (1,)])
    return outer, inner


@needs_threads
def test_work_within_a_piece_runs_in_line():
    outer, inner = threads_of_pieces()
    assert len(set(outer.values())) == 2 and len(inner) == 8
    assert all(thread == outer[n] for (n, _), thread in inner.items())


@needs_threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    def child():
        os._exit(len(set(threads_of_pieces()[0].values())))

    assert len(set(threads_of_pieces()[0].values())) == 2
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    code = process.exitcode
    process.kill()
    assert code == 2


def test_every_piece_is_done_once():
    for count, number in ((1, 2), (7, 2), (100, 3)):
        done = np.zeros(count, int)
        with Setting(2**21, number):
            threads.each(lambda n: np.add.at(done, n, 1), [(n,) for n in range(count)])  # noqa: B023
        assert (done == 1).all()
    covered = np.concatenate([np.arange(10)[part] for (part,) in threads.spread(10, 10**9)])
    assert covered.tolist() == list(range(10))


def test_explanations_on_several_threads_at_once_equal_those_alone():
    network = chain()
    x = np.random.default_rng(0).standard_normal((12, 2, 7, 8))
    expected = [explain(network, one[None]).relevance for one in x]
    results = {}

    def work(k):
        for n in range(60):
            results[k, n] = explain(network, x[n % 12][None])

    at_once(work, 4)
    assert len(results) == 240
    for (_, n), ours in results.items():
        assert_array_equal(ours.relevance, expected[n % 12])
