"""The published vectors: as they are written, as they are kept, by hand, and how the library does on them."""

import json
import shutil
from fractions import Fraction as F
from pathlib import Path

import h5py
import numpy as np
import pytest

import numpylrp
from numpylrp import rules
from numpylrp.composite import Composite
from numpylrp.errors import FileError, LRPError
from numpylrp.layers import Conv2D, Dense
from numpylrp.network import Network
from numpylrp.rules import Epsilon
from numpylrp.validate import vectors

KEPT = Path(__file__).parent / "vectors"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return {path.name: path for path in vectors.write(tmp_path_factory.mktemp("vectors") / "new")}


def contents(path):
    """All attributes and datasets of a file, by where they stand."""
    found = {}

    def keep(name, item):
        found.update({f"{name}@{key}": value for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        keep("", file)
        file.visititems(keep)
    return found


# ---------------------------------------------------------------- the files


def test_there_are_these_files_and_a_page():
    kept = {path.name for path in KEPT.iterdir()}
    assert kept == {f"{name}.h5" for name in vectors.names()} | {"README.md"}
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < 8_000_000
    page = (KEPT / "README.md").read_text()
    assert f"edition {vectors.EDITION}" in page and f"`{vectors.edition_digest(KEPT)}`" in page
    cases = sum(len(vectors.read(KEPT / f"{name}.h5").cases) for name in vectors.names())
    assert f"{len(vectors.names())} files, {cases} cases" in page


@pytest.mark.parametrize("name", vectors.names())
def test_the_files_are_what_write_makes_bit_for_bit(name, fresh):
    kept, made = contents(KEPT / f"{name}.h5"), contents(fresh[f"{name}.h5"])
    assert kept.keys() == made.keys()
    for where, value in kept.items():
        assert np.asarray(value).dtype == np.asarray(made[where]).dtype, where
        if isinstance(value, np.ndarray):
            assert value.shape == made[where].shape and value.tobytes() == made[where].tobytes(), where
        else:
            assert value == made[where], where


def test_writing_twice_gives_the_same_bytes(fresh, tmp_path, monkeypatch):
    few = ("dense", "batch-norm", "net-concatenation")
    monkeypatch.setattr(vectors, "PLANS", {name: vectors.PLANS[name] for name in few})
    again = vectors.write(tmp_path)
    assert [path.name for path in again] == [f"{name}.h5" for name in few]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in again)
    for path in again:
        assert path.read_bytes() == fresh[path.name].read_bytes()


def test_nothing_is_written_if_one_fails(tmp_path, monkeypatch):
    plans = {"dense": vectors.PLANS["dense"], "bad": ("", 0, lambda numbers: 1 / 0)}
    monkeypatch.setattr(vectors, "PLANS", plans)
    with pytest.raises(ZeroDivisionError):
        vectors.write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file can't be written to"):
        vectors.write(tmp_path / "file")


@pytest.mark.parametrize("name", vectors.names())
def test_a_file_is_a_model_and_reads_back_whole(name):
    found = vectors.read(KEPT / f"{name}.h5")
    network = numpylrp.load(KEPT / f"{name}.h5")
    assert network.shapes == found.network.shapes
    assert found.name == name and found.description and found.conventions["sign(0)"] == 1
    assert set(found.x) == set(network.inputs) and set(found.y) == {node.name for node in network.nodes}
    assert len(found.cases) >= {"net": 7, "seq": 6, "rap": 4}.get(name[:3], 9)
    for case in found.cases.values():
        reached = {name for name in network.shapes if name not in network.outputs[1:]}
        assert set(case.R) == reached
        assert case.R[network.outputs[0]].tobytes() == case.seed.tobytes()
    for arrays in (network.record(found.x), *(node.layer.arrays() for node in network.nodes)):
        if name.startswith(("dense", "conv2d")):  # weights, inputs and z of these are exact in float32
            assert all((a == a.astype(np.float32)).all() for a in arrays.values())


def test_the_cases_are_about_what_they_say():
    zero = vectors.read(KEPT / "dense-zero-outputs.h5")
    assert (zero.y["layer"][0, :2] == 0).all() and (zero.x["input"][1] == 0).all()
    for name in vectors.names():
        if not name.startswith(("net", "seq", "dense-zero")):
            x = vectors.read(KEPT / f"{name}.h5").x["input"]
            assert (x < 0).any() and (x > 0).any()


# ---------------------------------------------------------------- by hand


def test_dense_epsilon_by_hand():
    found = vectors.read(KEPT / "dense.h5")
    w, b = found.network["layer"].weight, found.network["layer"].bias
    x, case = found.x["input"], found.cases["epsilon"]
    assert case.rules == {"layer": Epsilon(0.25)}
    for n in range(2):
        expected = [F(0)] * 6
        for j in range(4):
            z = sum((F(x[n, i]) * F(w[j, i]) for i in range(6)), F(b[j]))
            assert found.y["layer"][n, j] == float(z)
            below = z + F(1, 4) if z >= 0 else z - F(1, 4)
            for i in range(6):
                expected[i] += F(x[n, i]) * F(w[j, i]) / below * F(case.seed[n, j])
        assert case.R["input"][n].tolist() == [float(v) for v in expected]


def test_zero_outputs_by_hand():
    """Sample 0: output 0 is 1 - 1 + 1/4 - 1/4 = 0, output 1 has no weights, 2 and 3 are 3/4 and -2."""
    found = vectors.read(KEPT / "dense-zero-outputs.h5")
    assert found.y["layer"].tolist() == [[0, 0, 0.75, -2], [0, 0, 0.5, -2]]
    r = [F(v) for v in found.cases["epsilon"].seed[0]]
    # contributions 1, -1, 1/4, -1/4 over +1/4; 1/2, 1/4, -1/2, 0 over 1; -1, 1, 1/2, -1/2 over -9/4
    expected = [
        4 * r[0] + r[2] / 2 + r[3] * F(4, 9),
        -4 * r[0] + r[2] / 4 - r[3] * F(4, 9),
        r[0] - r[2] / 2 - r[3] * F(2, 9),
        -r[0] + r[3] * F(2, 9),
    ]
    assert found.cases["epsilon"].R["input"][0].tolist() == [float(v) for v in expected]
    # LRP-0 drops what output 0 got
    expected = [
        r[2] * F(2, 3) + r[3] / 2,
        r[2] / 3 - r[3] / 2,
        -r[2] * F(2, 3) - r[3] / 4,
        r[3] / 4,
    ]
    assert found.cases["lrp-0"].R["input"][0].tolist() == [float(v) for v in expected]
    assert not found.cases["lrp-0"].R["input"][1].any()
    # flat knows no weights: a quarter of all
    assert (found.cases["flat"].R["input"] == found.cases["flat"].seed.sum(1, keepdims=True) / 4).all()


def test_a_padded_convolution_under_flat_by_hand():
    """Padding 1 above, 2 left, 1 right, kernel 3 x 3: an output at (p, q) sees rows p - 1 .. p + 1 of 4."""
    found = vectors.read(KEPT / "conv2d-padding.h5")
    case = found.cases["flat"]
    assert case.seed.shape == (2, 2, 3, 5) and case.R["input"].shape == (2, 2, 4, 4)
    for n in range(2):
        expected = np.full((4, 4), F(0))
        for p in range(3):
            for q in range(5):
                seen = [
                    (i, k) for i in range(p - 1, p + 2) for k in range(q - 2, q + 1) if i >= 0 and 0 <= k < 4
                ]
                for at in seen:  # both output channels, in equal shares to the two input channels
                    expected[at] += (F(case.seed[n, 0, p, q]) + F(case.seed[n, 1, p, q])) / (2 * len(seen))
        for channel in range(2):
            assert case.R["input"][n, channel].tolist() == expected.astype(float).tolist()


def test_ties_of_a_maximum_by_hand():
    """3 x 3 windows, stride 2, padding 1: the first of the largest takes all; windows overlap."""
    found = vectors.read(KEPT / "max-pool.h5")
    case, conv = found.cases["z-plus"], found.y["conv"]
    ties = 0
    for n, c in np.ndindex(2, 2):
        expected = np.full((4, 5), F(0))
        for p, q in np.ndindex(2, 3):
            window = [
                (i, k)
                for i in range(2 * p - 1, 2 * p + 2)
                for k in range(2 * q - 1, 2 * q + 2)
                if 0 <= i < 4 and 0 <= k < 5
            ]
            largest = [at for at in window if conv[n, c][at] == max(conv[n, c][a] for a in window)]
            ties += len(largest) > 1
            assert found.y["pool"][n, c, p, q] == conv[n, c][largest[0]]
            expected[largest[0]] += F(case.R["pool"][n, c, p, q])
        np.testing.assert_allclose(case.R["conv"][n, c], expected.astype(float), rtol=1e-15)
    assert ties >= 4


def test_fused_batch_normalization_before_a_padded_convolution_by_hand():
    """The bias of the fused convolution is a map: W' = W g, b' = b + sum of W s over the taps inside."""
    found = vectors.read(KEPT / "net-bn-padded-conv.h5")
    bn, conv, case = found.network["bn"], found.network["conv"], found.cases["epsilon fused"]
    assert case.rules["conv"] == Epsilon(0.25) and "bn" not in case.rules
    g = [F(a) / {F(9, 4): F(3, 2), F(4): F(2)}[F(v) + F(bn.eps)] for a, v in zip(bn.gamma, bn.variance)]
    s = [F(b) - a * F(m) for a, b, m in zip(g, bn.beta, bn.mean)]
    x, R = found.x["input"][0], case.R["conv"][0]
    expected = np.full((2, 4, 4), F(0))
    for o, p, q in np.ndindex(3, 4, 4):
        seen = [(c, i, k) for c, i, k in np.ndindex(2, 3, 3) if 0 <= p + i - 1 < 4 and 0 <= q + k - 1 < 4]
        w = {at: F(conv.weight[(o, *at)]) for at in seen}
        share = {(c, i, k): F(x[c, p + i - 1, q + k - 1]) * g[c] * w[c, i, k] for c, i, k in seen}
        z = sum(share.values(), F(conv.bias[o]) + sum(w[at] * s[at[0]] for at in seen))
        assert found.y["conv"][0, o, p, q] == float(z)
        for (c, i, k), v in share.items():
            expected[c, p + i - 1, q + k - 1] += v / (z + F(1, 4) * (1 if z >= 0 else -1)) * F(R[o, p, q])
    np.testing.assert_allclose(case.R["input"][0], expected.astype(float), rtol=1e-13, atol=1e-15)
    assert (case.R["bn"] == case.R["input"]).all()  # an identity


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", vectors.names())
def test_the_library_keeps_the_bounds(name, dtype, fast):
    found = vectors.check(KEPT / f"{name}.h5", dtype, fast)
    assert not [(case, layer, error, bound) for case, layer, error, bound in found if not error <= bound]
    cases = vectors.read(KEPT / f"{name}.h5").cases
    assert {case for case, *_ in found} == {"forward", *cases}
    # float64 and float32 differ by their unit roundoff; the bounds are no wide ones
    least, most = (2**-52, 1e-9) if dtype is np.float64 else (2**-23, 0.05)
    assert all(least <= bound < most for *_, bound in found)


MISTAKES = {
    "sign of 0": (rules, "stabilize", lambda z, e: z + e * np.where(z > 0, 1, -1), "dense-zero-outputs"),
    "no stabilizer": (rules, "stabilize", lambda z, e: z, "dense"),
    "stabilizer without sign": (rules, "stabilize", lambda z, e: z + e, "dense"),
    "contributions split by weight": (rules, "halves", lambda x: [(x, 1)], "conv2d"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_breaks_a_bound(mistake, monkeypatch):
    where, what, wrong, name = MISTAKES[mistake]
    monkeypatch.setattr(where, what, wrong)
    found = vectors.check(KEPT / f"{name}.h5", np.float32, fast=False)
    assert any(error > 10 * bound for _, _, error, bound in found)


@pytest.mark.parametrize("name", ["net-conv-bn", "net-bn-padded-conv", "net-bn-relu-conv", "net-residual"])
def test_treatments_of_batch_normalization_are_told_apart(name):
    cases = vectors.read(KEPT / f"{name}.h5").cases
    for preset in ("epsilon", "epsilon-plus", "epsilon-alpha2-beta1", "gamma"):
        fused, linear = (cases[f"{preset} {kind}"].R["input"] for kind in ("fused", "linear"))
        apart = np.abs(fused - linear).max() / np.abs(fused).max()
        assert apart > 10 * cases[f"{preset} fused"].bounds["float32"]


def test_what_rounding_could_decide_is_refused(monkeypatch, tmp_path):
    def plan(weight, x, rule):
        def cases(network, given, numbers):
            yield "case", Composite(default=rule).rules(network), "linear", None, np.ones((2, 1))

        network = Network([("fc", Dense(weight)), ("fc2", Dense([[1.0]]))], (2,))
        return {"p": ("", 0, lambda numbers: (network, {"input": np.array(x)}, cases))}

    third = [[1 / 3, -1 / 3]]  # its z = 0 could come out as anything, that of 1 / 2 can't
    for rule in (rules.LRP0(), rules.Gamma(0.25), Epsilon(0.25)):
        monkeypatch.setattr(vectors, "PLANS", plan(third, [[1.0, 1.0], [2.0, 1.0]], rule))
        with pytest.raises(LRPError, match="rounding in float32 could decide"):
            vectors.write(tmp_path)
    monkeypatch.setattr(vectors, "PLANS", plan([[0.5, -0.5]], [[1.0, 1.0]] * 2, Epsilon(0.25)))
    assert vectors.write(tmp_path)


def test_bounds_grow_with_the_condition():
    """z = (1 + d - 1) / 3: E(z) / z = 3 (2 + d) / d, and some roundings that do not grow."""

    def bound(d):
        def cases(network, given, numbers):
            yield "case", Composite(default=rules.LRP0()).rules(network), "linear", None, np.ones((2, 1))

        network = Network([("fc", Dense([[1 / 3, -1 / 3]]))], (2,))
        plans = {"p": ("", 0, lambda numbers: (network, {"input": np.array([[1 + d, 1.0]] * 2)}, cases))}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vectors, "PLANS", plans)
            return vectors.made("p").cases["case"].bounds["float64"]

    assert 6 < bound(1 / 64) / bound(1 / 8) < 8


# ---------------------------------------------------------------- bad files


def broken(tmp_path, change, name="dense"):
    path = tmp_path / "broken.h5"
    shutil.copy(KEPT / f"{name}.h5", path)
    with h5py.File(path, "r+") as file:
        del file.attrs["checksum"]  # as in a file that another program wrote
        change(file)
    return path


def remove(*where):
    def change(file):
        for name in where:
            del file[name]

    return change


def without(where, attribute):
    def change(file):
        del file[where].attrs[attribute]

    return change


def put(where, attribute, value):
    def change(file):
        file[where].attrs[attribute] = value

    return change


def rename(file):
    file["vectors/y/0000"].attrs["layer"] = "nobody"


def cut(file):
    del file["vectors/cases/flat/seed"]
    file["vectors/cases/flat/seed"] = np.ones((2, 3))


BAD = {
    "no vectors": (remove("vectors"), "no group 'vectors'"),
    "another format": (put("vectors", "format", "x"), "format 'numpylrp vectors'"),
    "a later version": (put("vectors", "version", 2), "version 2; this numpylrp reads 1"),
    "no x": (remove("vectors/x"), "the dataset 'x' of /vectors is missing"),
    "no y": (remove("vectors/y"), "the group 'y' of /vectors is missing"),
    "no y of a layer": (remove("vectors/y/0000"), "no dataset of layer 'layer'"),
    "y of no layer": (rename, "layer 'nobody'"),
    "no cases": (remove("vectors/cases"), "the group 'cases' of /vectors is missing"),
    "no seed": (remove("vectors/cases/flat/seed"), "the dataset 'seed' of /vectors/cases/flat is missing"),
    "a seed of another shape": (cut, r"flat/seed is to have shape \(2, 4\), not \(2, 3\)"),
    "no R": (remove("vectors/cases/flat/R"), "the group 'R' of /vectors/cases/flat is missing"),
    "no R of the input": (remove("vectors/cases/flat/R/input"), "dataset 'input' of /vectors/cases/flat/R"),
    "no bound": (without("vectors/cases/flat", "bound_float32"), "'bound_float32' of /vectors/cases/flat"),
    "no rules": (without("vectors/cases/flat", "rules"), "'rules' of /vectors/cases/flat is missing"),
    "rules that are no JSON": (put("vectors/cases/flat", "rules", "{"), "'rules' .* is not a JSON object"),
    "an unknown rule": (
        put("vectors/cases/flat", "rules", json.dumps({"layer": {"rule": "LRPError"}})),
        "unknown layer or rule: 'layer'",
    ),
    "an unknown parameter": (
        put("vectors/cases/flat", "rules", json.dumps({"layer": {"rule": "Gamma", "delta": 1}})),
        "rule of layer 'layer': .*delta",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_named_with_what_is_wrong(what, tmp_path):
    change, message = BAD[what]
    with pytest.raises(FileError, match=message) as error:
        vectors.read(broken(tmp_path, change))
    assert "broken.h5" in str(error.value)


def test_what_is_no_such_file(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        vectors.read(tmp_path / "none.h5")
    numpylrp.save(Network([("conv", Conv2D(np.ones((1, 1, 1, 1))))], (1, 2, 2)), tmp_path / "model.h5")
    with pytest.raises(FileError, match=r"model\.h5 has a network, but no group 'vectors'"):
        vectors.read(tmp_path / "model.h5")
