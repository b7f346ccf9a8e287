"""Results don't depend on pieces, threads or batches; convolutions against plain loops."""

import gc
import importlib
import itertools
import multiprocessing
import os
import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chain
from numpy.testing import assert_allclose, assert_array_equal
from strategies import convolutions, linear_layers, numbers, sample, seeds
from test_layers import plain_convolution

from numpylrp import engine, explain, im2col, windows
from numpylrp.layers import Conv2D, MaxPool2D
from numpylrp.rules import AlphaBeta, Epsilon, Gamma, Rule
from numpylrp.sharing import divide, stabilize
from numpylrp.windows import Windows

walks = importlib.import_module("numpylrp.explain")  # the function has the module's name

PIECES = (1, 500, 2**21)


class Setting:
    """Piece size and threads for a while; small work is spread, too."""

    def __init__(self, piece, threads):
        few = piece // 8 + 3
        self.spread = engine.spread
        self.new = (
            (im2col, "PIECE_BYTES", piece),
            (engine, "THREADS", threads),
            (engine, "RUN", few),
            (windows, "PLANES", few),
            (im2col, "COLUMNS", few),
            (im2col, "SMALL", few),
            (im2col, "THREAD_WORK", few),
            (im2col, "APART", few),
            (walks, "WALK", few),
        )

    def __enter__(self):
        self.old = [(room, name, getattr(room, name)) for room, name, _ in self.new]
        for setting in self.new:
            setattr(*setting)
        im2col.spread = lambda count, size: self.spread(count, size, least=1)

    def __exit__(self, *error):
        for setting in self.old:
            setattr(*setting)
        im2col.spread = self.spread


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
            patch.setattr(im2col, "APART", 1)
            patch.setattr(im2col, "FEW_OUTPUTS", 100)
            possible = min(pads[1]) <= apart * (width - 1)
            assert im2col._apart(weight, g, 1, pads, len(x), expected.shape[2:]) == possible
            y = im2col.convolve(x, weight, g)
            assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
            for bias in (offset, offset[:, :1, :1], offset[:, 0, 0]):
                more = expected + (bias[:, None, None] if bias.ndim == 1 else bias)
                assert_allclose(im2col.convolve(x, weight, g, 1, bias), more, rtol=1e-10, atol=1e-12)
            maps = im2col.convolve(x, weight, g, maps=2)
            assert_array_equal(maps, np.stack(np.split(y, 2, 1)))
            short = im2col.convolve(x.astype("f4"), weight.astype("f4"), g)
            assert short.dtype == np.float32
            assert_allclose(short, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((3, 3), (3, 3)), ((0, 0), (4, 1))], ids=str)
def test_large_convolutions_of_any_padding(pads):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((8, 64, 21, 42)), rng.standard_normal((8, 64, 3, 3))
    y = im2col.convolve(x, weight, Windows((3, 3), padding=pads))
    assert weight.size * y[:, 0].size >= im2col.APART
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    assert_allclose(y, np.einsum("nchwij,ocij->nohw", seen, weight, optimize=True), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("piece", PIECES)
@given(case=convolutions(kinds=(Conv2D,)), seed=seeds, batch=st.sampled_from([1, 3]))
def test_convolution_and_way_back_equal_plain_loops(piece, threads, case, seed, batch):
    layer, shape = case
    rng = np.random.default_rng(seed)
    x = numbers(rng, batch, *shape)
    pads = layer.windows.pads(shape[1:])
    expected = plain_convolution(x, layer.weight, None, layer.stride, pads, layer.dilation, layer.groups)
    offset = numbers(rng, len(layer.weight), *expected.shape[2:])
    with Setting(piece, threads):
        y = im2col.convolve(x, layer.weight, layer.windows, layer.groups)
        assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
        for bias in (offset, offset[:, 0, 0]):
            more = im2col.convolve(x, layer.weight, layer.windows, layer.groups, bias)
            moved = expected + (bias if bias.ndim == 3 else bias[:, None, None])
            assert_allclose(more, moved, rtol=1e-10, atol=1e-12)
        s = numbers(rng, *y.shape)
        back = im2col.convolve_adjoint(s, layer.weight, layer.windows, shape[1:], layer.groups)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(im2col, "PAIRED_CHANNELS", 1)
            pairs = im2col.convolve_adjoint(s, layer.weight, layer.windows, shape[1:], layer.groups, True)
    assert_allclose(pairs, back, rtol=1e-10, atol=1e-12 * (1 + abs(back).max()))
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
        expected = explain(network, x, composite=composite)
        with Setting(piece, threads):
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
            assert_allclose(im2col.convolve(x, weight, g, groups), expected, rtol=1e-10)


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
            back = im2col.convolve_adjoint(s, weight, g, x.shape[2:])
        # of a linear map and its transposed: <A x, s> = <x, A' s>, sample by sample
        assert_allclose((back * x).sum((1, 2, 3)), (image * s).sum((1, 2, 3)), rtol=1e-10)


@given(
    seed=seeds, outputs=st.sampled_from([1, 3, 600]), lead=st.sampled_from([(), (1,), (6, 7), (8, 9), (0,)])
)
def test_matrix_products_are_cut(seed, outputs, lead):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((*lead, 500)), rng.standard_normal((500, outputs))
    for matrix in (w, np.asfortranarray(w)):
        assert_allclose(engine.matmul(x, matrix), x @ matrix, rtol=1e-10, atol=1e-10)


@given(seed=seeds, shape=st.tuples(*[st.integers(1, 9)] * 2), pad=st.integers(0, 2))
def test_rows_in_pairs_equal_rows_alone(seed, shape, pad):
    rng = np.random.default_rng(seed)
    g = Windows((3, 3), padding=((pad, pad), (pad, pad)))
    size = tuple(n + 2 for n in shape)
    weight = numbers(rng, 17, 18, 3, 3)
    s = numbers(rng, 2, 17, *g.output_size(size))
    s[0, :, 1:] = 0  # zeros stay zeros
    expected = im2col.convolve_adjoint(s, weight, g, size)
    with Setting(500, 2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(im2col, "PAIRED_CHANNELS", 1)
        back = im2col.convolve_adjoint(s, weight, g, size, pairs=True)
    assert_allclose(back, expected, rtol=1e-10, atol=1e-12 * (1 + abs(expected).max()))
    assert_array_equal(back[0, :, 4:], 0)


def test_work_on_single_values_is_cut_into_runs():
    rng = np.random.default_rng(0)
    R, z = rng.standard_normal((2, 3, 4, 50, 7))
    z[1] = np.round(z[1])  # with zeros

    def work(R, z, out=None):
        return divide(R, stabilize(z, 0.5), out)

    for layout in (lambda a: a, lambda a: a[..., ::-1], lambda a: a.swapaxes(1, 2)):
        for rule in (np.multiply, divide, work):
            with Setting(1, 3):
                assert_array_equal(engine.mapped(rule, layout(R), layout(z)), rule(layout(R), layout(z)))


def test_what_is_derived_from_an_array_lives_as_long():
    calls = []

    def twice(array, factor):
        calls.append(factor)
        return factor * array

    array = np.arange(3.0)
    before = len(engine._derived)
    for _ in range(2):
        assert engine.derived(array, twice, 2).tolist() == [0, 2, 4]
        assert engine.derived(array, twice, 3).tolist() == [0, 3, 6]
    assert calls == [2, 3] and len(engine._derived) == before + 2
    del array
    assert len(engine._derived) == before


@pytest.mark.parametrize("pool", [MaxPool2D(3, 2, 1), MaxPool2D(2), MaxPool2D((1, 2), (2, 3))], ids=str)
def test_pooling_is_spread_without_a_difference(pool):
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((2, 5, 9, 8)), 1)
    y = pool.forward(x)
    R = rng.standard_normal(y.shape)
    expected = pool.relprop(R, x, y)
    with Setting(1, 3):
        assert_array_equal(pool.forward(x), y)
        assert_array_equal(pool.relprop(R, x, y), expected)


@pytest.mark.parametrize("kind", [Epsilon, Gamma, Rule])
def test_a_stabilizer_of_ones_own_sees_all_of_z(kind):
    class Own(kind):
        def stabilized(self, z):
            return z + 2 * abs(z).max((1, 2, 3), keepdims=True)

    R, z = np.random.default_rng(0).standard_normal((2, 2, 3, 4, 5))
    with Setting(1, 2):
        assert_allclose(Own().divided(R, z), R / (z + 2 * abs(z).max((1, 2, 3), keepdims=True)), rtol=1e-12)
        relative = Epsilon(0.5, relative=True).divided(R, z)
        plain = kind().divided(R, z)
    size = np.sqrt((z * z).mean((1, 2, 3), keepdims=True))
    assert_allclose(relative, R / (z + 0.5 * size * np.sign(z)), rtol=1e-12)
    assert_allclose(plain, R / z, rtol=1e-3)


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
    functions = engine._blas()
    before = functions and functions[0]()
    rng = np.random.default_rng(0)
    layer, x = Conv2D(rng.standard_normal((8, 4, 3, 3)), padding=1), rng.standard_normal((4, 4, 20, 20))
    expected, results = layer.forward(x), {}

    def work(k):
        for _ in range(20):
            results[k] = layer.forward(x)

    with Setting(20_000, 2):
        at_once(work, 5)
    assert len(results) == 5
    for y in results.values():
        assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    assert before == (functions and functions[0]())


needs_threads = pytest.mark.skipif(
    engine._blas() is None, reason="work is not spread: NumPy has no OpenBLAS of its own here"
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
        engine.each(work, [(n,) for n in range(100)])
    assert set(range(4)) <= set(begun) and len(begun) < 100
    with Setting(2**21, 2):  # and the threads are there for the next
        engine.each(begun.append, [(None,)] * 5)
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
            engine.each(work, [(np.ones(3),), (np.ones(3),)])

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
        engine.each(work, [(0,), (1,)])
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
            engine.each(lambda n: (time.sleep(0.01), big[n]), [(n,) for n in range(4)])

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
        engine.each(within, [(n, m) for m in range(4)])

    with Setting(2**21, 3):
        engine.each(work, [(0,), (1,)])
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
    for count, threads in ((1, 2), (7, 2), (100, 3)):
        done = np.zeros(count, int)
        with Setting(2**21, threads):
            engine.each(lambda n: np.add.at(done, n, 1), [(n,) for n in range(count)])  # noqa: B023
        assert (done == 1).all()
    covered = np.concatenate([np.arange(10)[part] for (part,) in engine.spread(10, 10**9)])
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
