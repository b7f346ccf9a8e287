"""ONNX models with tokens, attention and recurrent layers, against onnxruntime."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from numpylrp import explain
from numpylrp.errors import UnsupportedError
from numpylrp.layers import GRU, LSTM, Embedding, LayerNorm, MatMul, SimpleRNN, Softmax

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
exporter = pytest.importorskip("numpylrp.export.onnx")
helper = onnx.helper
BLOCKS = {"LSTM": 4, "GRU": 3, "RNN": 1}


def model(nodes, inputs, outputs, constants, opset=17):
    """A model of these nodes; inputs and outputs are names with shapes.

    onnxruntime has recurrent operators in float32 only: what has one is calculated so.
    """
    single = any(node.op_type in BLOCKS for node in nodes)
    real = onnx.TensorProto.FLOAT if single else onnx.TensorProto.DOUBLE
    kinds = {np.dtype(float): real, np.dtype("i8"): onnx.TensorProto.INT64}
    if single:
        constants = {k: np.float32(v) if np.asarray(v).dtype.kind == "f" else v for k, v in constants.items()}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kinds[np.dtype(t)], shape) for name, shape, t in inputs],
        [helper.make_tensor_value_info(name, real, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return made


def agrees(made, x, tolerance=1e-10):
    """The network, whose output is that of onnxruntime."""
    network = exporter.convert(made)
    if network.dtype == np.float32:
        x, tolerance = {name: np.float32(v) if v.dtype.kind == "f" else v for name, v in x.items()}, 2e-6
    theirs = runtime.InferenceSession(made.SerializeToString()).run(None, x)[0]
    given = x if len(x) > 1 else next(iter(x.values()))
    assert_allclose(network.forward(given), theirs, rtol=tolerance, atol=tolerance * abs(theirs).max())
    return network


def recurrent(kind, direction="forward", what="all", **options):
    """Samples first, a recurrent operator with time first, and samples first again."""
    rng = np.random.default_rng(0)
    dirs, h = (2 if direction == "bidirectional" else 1), 3
    rows = BLOCKS[kind] * h
    constants = {
        "W": rng.standard_normal((dirs, rows, 2)),
        "R": rng.standard_normal((dirs, rows, h)),
        "B": rng.standard_normal((dirs, 2 * rows)),
        "shape": np.array([0, 0, -1]),
        "axis": np.array([1 if what == "squeezed" else 0]),
    }
    node = helper.make_node(
        kind, ["t", "W", "R", "B"], ["Y", "Y_h"], hidden_size=h, direction=direction, **options
    )
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node]
    if what == "all":
        nodes += [
            helper.make_node("Transpose", ["Y"], ["moved"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", ["moved", "shape"], ["joined"]),
            helper.make_node("Transpose", ["joined"], ["y"], perm=[1, 0, 2]),
        ]
    elif what == "squeezed":
        nodes += [
            helper.make_node("Squeeze", ["Y", "axis"], ["flat"]),
            helper.make_node("Tanh", ["flat"], ["bent"]),
            helper.make_node("Transpose", ["bent"], ["y"], perm=[1, 0, 2]),
        ]
    else:
        nodes.append(helper.make_node("Transpose", ["Y_h"], ["y"], perm=[1, 0, 2]))
    return model(nodes, [("x", (None, 4, 2), float)], ["y"], constants), {"x": rng.standard_normal((3, 4, 2))}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("what", ["all", "last"])
def test_recurrent_operators(kind, direction, what):
    made, x = recurrent(kind, direction, what)
    network = agrees(made, x)
    layers = [n.layer for n in network.nodes if isinstance(n.layer, (LSTM, GRU, SimpleRNN))]
    reverse = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    assert [layer.reverse for layer in layers] == reverse
    R = explain(network, x["x"], seed="all", composite="lstm").relevance
    assert R.shape == (3, 4, 2) and R.any()


def test_options_of_recurrent_operators():
    agrees(*recurrent("GRU", linear_before_reset=1))
    agrees(*recurrent("LSTM", what="squeezed"))
    agrees(*recurrent("RNN", activations=["Relu"]))
    agrees(*recurrent("GRU", activations=["HardSigmoid", "Tanh"]))
    for options, says in (
        ({"clip": 1.0}, "with clip, input_forget or peepholes"),
        ({"activations": ["Sigmoid", "Tanh", "Relu"]}, "activations Sigmoid, Tanh, Relu"),
        ({"activations": ["Sigmoid", "Elu", "Elu"]}, "activations"),
    ):
        with pytest.raises(UnsupportedError, match=says):
            exporter.convert(recurrent("LSTM", **options)[0])


def test_states_that_are_given_and_states_that_are_read():
    rng = np.random.default_rng(0)
    constants = {
        "W": rng.standard_normal((1, 12, 2)),
        "R": rng.standard_normal((1, 12, 3)),
        "h0": np.broadcast_to(rng.standard_normal((1, 1, 3)), (1, 2, 3)).copy(),
        "c0": np.broadcast_to(rng.standard_normal((1, 1, 3)), (1, 2, 3)).copy(),
    }
    start = helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2])
    lstm = helper.make_node("LSTM", ["t", "W", "R", "", "", "h0", "c0"], ["", "h", "c"], hidden_size=3)
    end = helper.make_node("Transpose", ["h"], ["y"], perm=[1, 0, 2])
    x = {"x": rng.standard_normal((2, 4, 2))}
    network = agrees(model([start, lstm, end], [("x", (2, 4, 2), float)], ["y"], constants), x)
    assert network.nodes[0].layer.initial_c is not None
    end = helper.make_node("Transpose", ["c"], ["y"], perm=[1, 0, 2])
    with pytest.raises(UnsupportedError, match="the final cell state as an output is not supported"):
        exporter.convert(model([start, lstm, end], [("x", (2, 4, 2), float)], ["y"], constants))
    out = helper.make_node("Identity", ["h"], ["y"])
    with pytest.raises(UnsupportedError, match=r"batch on (axis 1|another axis)"):
        exporter.convert(model([start, lstm, out], [("x", (2, 4, 2), float)], ["y"], constants))
    straight = helper.make_node("LSTM", ["x", "W", "R"], ["", "y"], hidden_size=3)
    with pytest.raises(UnsupportedError, match="must read time first, then samples"):
        exporter.convert(model([straight], [("x", (2, 4, 2), float)], ["y"], constants))


def test_attention_and_tokens():
    rng = np.random.default_rng(0)
    constants = {
        "table": rng.standard_normal((9, 4)),
        "Q": rng.standard_normal((4, 4)),
        "K": rng.standard_normal((4, 4)),
        "V": rng.standard_normal((4, 4)),
        "heads": np.array([0, 0, 2, 2]),
        "joined": np.array([0, 0, 4]),
        "root": np.array(np.sqrt(2.0)),
    }
    nodes = [helper.make_node("Gather", ["table", "x"], ["e"])]
    for name, perm in (("Q", [0, 2, 1, 3]), ("K", [0, 2, 3, 1]), ("V", [0, 2, 1, 3])):
        nodes += [
            helper.make_node("MatMul", ["e", name], [f"{name}1"]),
            helper.make_node("Reshape", [f"{name}1", "heads"], [f"{name}2"]),
            helper.make_node("Transpose", [f"{name}2"], [f"{name}3"], perm=perm),
        ]
    nodes += [
        helper.make_node("MatMul", ["Q3", "K3"], ["scores"]),
        helper.make_node("Div", ["scores", "root"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "V3"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "joined"], ["y"]),
    ]
    x = {"x": rng.integers(0, 9, (2, 5))}
    network = agrees(model(nodes, [("x", (None, 5), "i8")], ["y"], constants), x)
    kinds = [type(n.layer) for n in network.nodes]
    assert kinds[0] is Embedding and kinds.count(MatMul) == 2 and Softmax in kinds
    for preset in ("attnlrp", "cp-lrp"):
        R = explain(network, x["x"], seed="all", composite=preset).relevance
        assert R.shape == (2, 5)


@pytest.mark.parametrize("keep", [True, False])
def test_normalization_softmax_and_tokens_written_out(keep):
    """As Flax and tf2onnx have them: one-hot codes, fast variance, exponentials."""
    rng = np.random.default_rng(0)
    constants = {
        "table": rng.standard_normal((7, 4)),
        "codes": np.arange(7)[None, None],
        "one": np.array([0, 3, 1]),
        "axis": np.array([1]),
        "last": np.array([2]),
        "third": np.array(1 / 3),
        "zero": np.array(0.0),
        "eps": np.array(1e-3),
        "row": np.array([0, 1, 4]),
        "full": np.array([1, 3, 4]),
        "gamma": rng.standard_normal((1, 3, 1)),
        "beta": rng.standard_normal((1, 3, 1)),
        "lowest": np.array(-np.inf),
        "column": np.array([0, 3, 1]),
    }
    make = helper.make_node
    nodes = [
        make("Reshape", ["x", "one"], ["x1"]),
        make("Identity", ["x1"], ["x2"]),
        make("Equal", ["x2", "codes"], ["hot"]),
        make("Cast", ["hot"], ["code"], to=onnx.TensorProto.DOUBLE),
        make("MatMul", ["code", "table"], ["e"]),
        make("ReduceSum", ["e", "axis"], ["s"], keepdims=int(keep)),
        make("Mul", ["e", "e"], ["e2"]),
        make("ReduceSum", ["e2", "axis"], ["s2"], keepdims=int(keep)),
        make("Mul", ["s2", "third"], ["m2"]),
        make("Mul", ["s", "third"], ["m"]),
        make("Mul", ["m", "m"], ["mm"]),
        make("Sub", ["m2", "mm"], ["var"]),
        make("Max", ["zero", "var"], ["var0"]),
        make("Reshape", ["var0", "row"], ["var1"]),
        make("Expand", ["var1", "full"], ["var2"]),
        make("Add", ["var2", "eps"], ["var3"]),
        make("Sqrt", ["var3"], ["d"]),
        make("Reciprocal", ["d"], ["r"]),
        make("Mul", ["r", "gamma"], ["rg"]),
        make("Reshape", ["m", "row"], ["m1"]),
        make("Expand", ["m1", "full"], ["m3"]),
        make("Sub", ["e", "m3"], ["c"]),
        make("Mul", ["c", "rg"], ["n"]),
        make("Add", ["n", "beta"], ["normed"]),
        make("ReduceMax", ["normed"], ["top"], axes=[2], keepdims=0),
        make("Max", ["lowest", "top"], ["top1"]),
        make("Reshape", ["top1", "column"], ["top2"]),
        make("Sub", ["normed", "top2"], ["z"]),
        make("Exp", ["z"], ["exp"]),
        make("ReduceSum", ["exp", "last"], ["total"], keepdims=1),
        make("Div", ["exp", "total"], ["y"]),
    ]
    x = {"x": rng.integers(0, 7, (2, 3))}
    network = agrees(model(nodes, [("x", (None, 3), "i8")], ["y"], constants), x, 1e-9)
    assert [type(n.layer) for n in network.nodes] == [Embedding, LayerNorm, Softmax]
    constants["third"] = np.array(0.3)  # no mean
    with pytest.raises(UnsupportedError, match=r"a sum over 3 values times 0\.3 is no mean"):
        exporter.convert(model(nodes, [("x", (None, 3), "i8")], ["y"], constants))
