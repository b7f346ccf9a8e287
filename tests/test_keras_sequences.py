"""Keras models with tokens, attention and recurrent layers: as Keras computes them, in both of its files."""

import os

import numpy as np
import pytest
from numpy.testing import assert_allclose

import numpylrp
from numpylrp import explain
from numpylrp.errors import FileError, UnsupportedError
from numpylrp.layers import GRU, LSTM, Embedding, MaskedSoftmax, NotEqual, TimeDistributed

pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
K = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
SERIES = np.random.default_rng(0).standard_normal((2, 5, 3))


def model(shape, function, dtype=None):
    """A functional model with weights that are not small."""
    given = K.Input(shape, dtype=dtype)
    return with_weights(keras.Model(given, function(given)))


def with_weights(made):
    rng = np.random.default_rng(0)
    kinds = [v.name for v in made.weights]  # a variance is positive
    values = [0.5 * rng.standard_normal(w.shape) for w in made.get_weights()]
    made.set_weights([abs(v) if "variance" in kind else v for kind, v in zip(kinds, values)])
    return made


def agrees(made, x, folder):
    """The network from a .keras and an .h5 file, whose output is Keras' own (in float32)."""
    theirs = keras.ops.convert_to_numpy(made(x))
    for ending in ("keras", "h5"):
        made.save(folder / f"m.{ending}")
        network = numpylrp.load(folder / f"m.{ending}")
        assert_allclose(network.forward(x), theirs, rtol=1e-5, atol=2e-6)
    return network


@pytest.mark.parametrize(
    "make",
    [
        lambda i: K.LSTM(4)(K.LSTM(3, return_sequences=True)(i)),
        lambda i: K.GRU(4)(K.GRU(3, return_sequences=True, use_bias=False)(i)),
        lambda i: K.SimpleRNN(4, activation="relu")(i),
        lambda i: K.GRU(4, reset_after=False, recurrent_activation="hard_sigmoid")(i),
        lambda i: K.LSTM(4, go_backwards=True)(i),
        lambda i: K.Bidirectional(K.LSTM(4))(i),
        lambda i: K.Bidirectional(K.GRU(4, return_sequences=True), merge_mode="sum")(i),
    ],
    ids=["lstm", "gru", "rnn", "reset before", "backwards", "both ways", "summed"],
)
def test_recurrent_layers(make, tmp_path):
    network = agrees(model((5, 3), lambda i: K.Dense(2)(make(i))), SERIES, tmp_path)
    R = explain(network, SERIES, seed="all", composite="lstm").relevance
    assert R.shape == SERIES.shape and R.any()
    free = agrees(model((None, 3), lambda i: K.Dense(2)(make(i))), SERIES, tmp_path)
    assert_allclose(free.forward(SERIES[:, :4]).shape[0], 2)


@pytest.mark.parametrize("functional", [True, False])
def test_padding_is_skipped(functional, tmp_path):
    layers = [
        K.Embedding(10, 6, mask_zero=True),
        K.Bidirectional(K.LSTM(4, return_sequences=True)),
        K.Dropout(0.1),
        K.GRU(3, return_sequences=True),
        K.TimeDistributed(K.Dense(4)),
        K.SimpleRNN(3),
        K.Dense(2),
    ]

    def chain(x):
        for layer in layers:
            x = layer(x)
        return x

    if functional:
        made = model((5,), chain, "int32")
    else:
        made = with_weights(keras.Sequential([K.Input((5,), dtype="int32"), *layers]))
    network = agrees(made, TOKENS, tmp_path)
    kinds = [type(node.layer) for node in network.nodes]
    assert kinds.count(NotEqual) == 1 and kinds.count(LSTM) == 2 and GRU in kinds and kinds[0] is Embedding
    R = explain(network, TOKENS, seed="all", composite="lstm").relevance
    assert (R[TOKENS == 0] == 0).all() and R[TOKENS != 0].all()


def test_masking_of_values(tmp_path):
    x = np.where(np.arange(5)[:, None] < 3, SERIES, -1.0)
    made = with_weights(
        keras.Sequential(
            [K.Input((5, 3)), K.Masking(-1.0), K.LSTM(4, return_sequences=True), K.GRU(2), K.Dense(2)]
        )
    )
    network = agrees(made, x, tmp_path)
    assert not explain(network, x, seed="all", composite="lstm").relevance[:, 3:].any()
    agrees(model((5, 3), lambda i: K.Dense(2)(K.LSTM(4)(K.Masking(-1.0)(i)))), x, tmp_path)


def test_attention(tmp_path):
    def block(i):
        x = K.Embedding(10, 6)(i)
        x = K.LayerNormalization()(K.Add()([x, K.MultiHeadAttention(2, 4)(x, x)]))
        x = K.Add()([x, K.MultiHeadAttention(2, 3, use_bias=False)(x, x, use_causal_mask=True)])
        return K.Dense(2)(K.GlobalAveragePooling1D()(x))

    network = agrees(model((5,), block, "int32"), TOKENS, tmp_path)
    causal = [node.layer.causal for node in network.nodes if isinstance(node.layer, MaskedSoftmax)]
    assert causal == [False, True]
    for preset in ("attnlrp", "cp-lrp"):
        assert explain(network, TOKENS, composite=preset).relevance.shape == TOKENS.shape


def test_images_made_larger(tmp_path):
    image = np.random.default_rng(1).standard_normal((2, 4, 5, 3))
    for options in ({"interpolation": "bilinear"}, {"interpolation": "nearest"}):
        agrees(model((4, 5, 3), lambda i, o=options: K.UpSampling2D((2, 3), **o)(i)), image, tmp_path)
    pad = [[0, 0], [1, 2], [0, 1], [0, 0]]
    agrees(model((4, 5, 3), lambda i: keras.ops.pad(i, pad, mode="reflect")), image, tmp_path)


def test_a_layer_for_every_step(tmp_path):
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 5, 3))

    def images(i):
        y = K.TimeDistributed(K.Conv2D(4, 3, activation="relu"))(i)
        y = K.TimeDistributed(K.BatchNormalization())(y)
        y = K.TimeDistributed(K.MaxPooling2D(2))(y)
        return K.Dense(2)(K.LSTM(3)(K.TimeDistributed(K.Flatten())(y)))

    network = agrees(model((4, 6, 5, 3), images), x, tmp_path)
    assert [n.layer.family for n in network.nodes if isinstance(n.layer, TimeDistributed)].count("conv") == 1
    R = explain(network, x, composite="epsilon-plus-flat").relevance
    assert R.shape == x.shape and R.any()


REFUSED = {
    "stateful": (lambda i: K.LSTM(4, stateful=True)(i), "keeps its state from batch to batch"),
    "state": (lambda i: K.LSTM(4, return_state=True)(i)[0], "gives its states as outputs"),
    "backwards": (
        lambda i: K.GRU(4, go_backwards=True, return_sequences=True)(i),
        "from the last step to the first",
    ),
    "activation": (
        lambda i: K.LSTM(4, activation="softsign")(i),
        "the activation 'softsign' in a recurrent layer",
    ),
    "pooled": (lambda i: K.GlobalAveragePooling1D()(K.Masking()(i)), "mask"),
    "attention": (
        lambda i: (x := K.Masking()(i), K.MultiHeadAttention(1, 2)(x, x))[1],
        "attention with a mask",
    ),
    "held": (lambda i: K.TimeDistributed(K.LSTM(2))(K.Reshape((5, 3, 1))(i)), "it holds 'LSTM'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named(case, tmp_path):
    make, says = REFUSED[case]
    given = K.Input(batch_shape=(2, 5, 3))
    path = tmp_path / ("m.h5" if case == "held" else "m.keras")
    keras.Model(given, make(given)).save(path)
    with pytest.raises(UnsupportedError, match=says):
        numpylrp.load(path)


def test_weights_that_do_not_fit_are_named(tmp_path):
    import h5py

    model((5, 3), lambda i: K.LSTM(4, name="net")(i)).save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        where = file["model_weights/net"]
        where.attrs["weight_names"] = list(where.attrs["weight_names"])[:2]
    with pytest.raises(FileError, match=r"'net' .*it must have 3 arrays of weights, but the file has 2"):
        numpylrp.load(tmp_path / "m.h5")
