"""Vectors, the judge and the conformance table as a user meets them."""

import importlib.util
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from networks import chain

from numpylrp import explain, save
from numpylrp.cli import main
from numpylrp.errors import FileError, LRPError
from numpylrp.files import write_between
from numpylrp.validate import conformance, vectors
from numpylrp.validate.compare import compare, judge

VECTORS = Path(__file__).parent / "vectors"


def call(capsys, *args):
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


def test_vectors_are_written_as_they_are_published(tmp_path, capsys, monkeypatch):
    few = {name: vectors.PLANS[name] for name in ("dense", "conv2d-padding")}
    monkeypatch.setattr(vectors, "PLANS", few)
    code, out, _ = call(capsys, "vectors", "--out", tmp_path / "v", "--check")
    assert code == 0 and "2 files, 18 cases" in out and "numpylrp in float32: largest error" in out
    for name in few:
        assert (tmp_path / "v" / f"{name}.h5").read_bytes() == (VECTORS / f"{name}.h5").read_bytes()


def test_compare_with_a_file_of_vectors(tmp_path, capsys):
    path = VECTORS / "conv2d-padding.h5"
    given = vectors.read(path)
    right = given.cases["gamma"].R["input"]
    np.savez(tmp_path / "right.npz", input=right * (1 + 1e-14))
    assert call(capsys, "compare", path, tmp_path / "right.npz", "--case", "gamma")[0] == 0
    code, out, _ = call(capsys, "compare", path, tmp_path / "right.npz")  # finds the case itself
    assert code == 0 and "case gamma" in out and "agree" in out
    layer, x, seed = given.network["layer"], given.x["input"], given.cases["gamma"].seed
    matrix = layer.as_matrix(x.shape[1:])
    wrong = np.zeros_like(x)  # gamma on weights only, by loops over an explicit matrix
    favoured = matrix + 0.25 * np.maximum(matrix, 0)
    bias = np.repeat(layer.bias, seed[0, 0].size)
    for n in range(2):
        z = x[n].ravel() @ favoured + bias
        wrong[n] = (x[n].ravel() * (favoured @ (seed[n].ravel() / z))).reshape(x.shape[1:])
    with h5py.File(tmp_path / "wrong.h5", "w") as file:
        file["input"] = wrong
    code, out, _ = call(capsys, "compare", path, tmp_path / "wrong.h5", "--case", "gamma")
    assert code == 1 and '"gamma on weights only, bias as it is"' in out
    code, _, err = call(capsys, "compare", path, tmp_path / "wrong.h5", "--case", "gama")
    assert code == 1 and "there is no case 'gama'; there are alpha2-beta1" in err


def test_a_case_that_is_guessed_is_said_to_be(tmp_path, capsys):
    given = vectors.read(VECTORS / "dense.h5")
    layer, x, case = given.network["layer"], given.x["input"], given.cases["gamma"]
    c = x[:, None, :] * layer.weight  # gamma without the bias, contributions right
    side = np.where(given.y["layer"] >= 0, 1, -1)[:, :, None]
    c = c + 0.25 * np.where(side * c > 0, c, 0)
    np.savez(tmp_path / "a.npz", input=(c / c.sum(2, keepdims=True) * case.seed[:, :, None]).sum(1))
    code, out, _ = call(capsys, "compare", VECTORS / "dense.h5", tmp_path / "a.npz")
    assert code == 1 and "case gamma" in out and "the case that fits best, of 9" in out
    assert "the bias dropped from the denominator" in out
    code, _, err = call(capsys, "compare", VECTORS / "dense.h5", tmp_path / "a.npz", "--target", "1")
    assert code == 1 and "--case chooses" in err
    code, _, err = call(capsys, "compare", tmp_path / "nope.h5", tmp_path / "a.npz")
    assert code == 1 and "nope.h5 does not exist" in err


def test_small_differences_between_arrays_count_where_asked(tmp_path):
    R = np.random.default_rng(0).standard_normal((2, 5))
    assert compare({"a": R}, {"a": R * (1 + 1e-12)}).agrees
    assert not compare({"a": R}, {"a": R * (1 + 1e-12)}, tolerance=0).agrees
    assert compare(
        {"a": R}, {"a": R.astype(">f4")}
    ).agrees  # in the precision of its bytes, whatever their order
    verdict = compare({"a": R}, {"a": R[::-1] * [1, 2, 1, 1, 1]})
    assert verdict.cause.startswith("'a' differs") and "seed" not in verdict.cause
    for bad in (-1.0, np.nan):
        with pytest.raises(LRPError, match="tolerance is to be"):
            compare({"a": R}, {"a": R}, tolerance=bad)
    with pytest.raises(LRPError, match="reference has values that are NaN"):
        compare({"a": R * np.nan}, {"a": R})


def test_compare_with_a_model_and_its_inputs(tmp_path, capsys):
    network = chain()
    save(network, tmp_path / "net.h5")
    x = np.random.default_rng(0).uniform(0, 1, (3, *network.inputs["input"]))
    np.savez(tmp_path / "x.npz", x=x, labels=np.array([0, 1, 0]))
    R = explain(network, x, [0, 1, 0], composite="epsilon-plus").relevance
    np.savez(tmp_path / "mine.npz", attribution=R)
    args = ["compare", tmp_path / "net.h5", tmp_path / "mine.npz", "--inputs", tmp_path / "x.npz"]
    assert call(capsys, *args, "--target", "true")[0] == 0
    code, out, _ = call(capsys, *args, "--target", "true", "--composite", "epsilon")
    assert code == 1 and "differs" in out
    code, _, err = call(capsys, "compare", tmp_path / "net.h5", tmp_path / "mine.npz")
    assert code == 1 and "--inputs" in err


def test_compare_two_files_of_relevance(tmp_path, capsys):
    R = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    np.savez(tmp_path / "a.npz", input=R, conv=R, fc=R[:, 0, 0], more=R)
    np.savez(tmp_path / "b.npz", input=R, conv=R.transpose(0, 2, 3, 1), fc=-3 * R[:, 0, 0])
    code, out, _ = call(capsys, "compare", tmp_path / "a.npz", tmp_path / "b.npz")
    assert code == 1 and "is -3 times the reference's" in out and "channels last" in out
    assert "not given: more" in out
    bad = R.copy()
    bad[0, 0, 0, 0] = np.nan
    verdict = compare({"a": R, "b": R, "c": R}, {"a": bad, "b": R[:, :2], "c": np.where(R > 1, 0, R)})
    assert "1 values are NaN" in verdict["a"].text and "has shape (2, 2, 4, 5)" in verdict["b"].text
    assert f"differs on {100 * (R > 1).mean():.3g} % of its values" == verdict["c"].text
    np.savez(tmp_path / "c.npz", nothing=R)
    code, _, err = call(capsys, "compare", tmp_path / "a.npz", tmp_path / "c.npz")
    assert code == 1 and "no name is in both" in err


def test_conventions_are_shown_with_their_size(capsys):
    code, out, _ = call(capsys, "conventions")
    assert code == 0
    for library in ("zennit", "captum", "innvestigate", "lrp_toolbox", "LXT", "TorchLRP", "RAP"):
        assert re.search(rf"^{library} ", out, re.M)


def test_a_library_is_run_and_judged_by_one_command(tmp_path, capsys):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    path, out_path = VECTORS / "dense.h5", tmp_path / "theirs.npz"
    code, _, err = call(capsys, "peer", "nobody", path)
    assert code == 1 and "no library 'nobody'; there are zennit, captum, lxt, innvestigate" in err
    for name in ("innvestigate", "lxt"):
        if not importlib.util.find_spec(name):
            code, _, err = call(capsys, "peer", name, path, "--case", "epsilon")
            assert code == 1 and f"{name} is not installed: pip install" in err
    pytest.importorskip("zennit", reason="zennit is not installed")
    code, out, _ = call(capsys, "peer", "zennit", path, "--case", "epsilon", "--out", out_path)
    assert code == 0 and "agree" in out
    assert call(capsys, "compare", path, out_path, "--case", "epsilon")[0] == 0
    code, out, _ = call(capsys, "peer", "zennit", path, "--case", "w-square")
    assert code == 1 and '"zennit 0.5.1"' in out
    code, _, err = call(capsys, "peer", "zennit", path, "--out", out_path)
    assert code == 1 and "--case chooses" in err


def test_lxt_has_a_stabilizer_without_sign():
    pytest.importorskip("lxt", reason="LXT is not installed")
    from numpylrp.validate import libraries

    for name, case, cause in (
        ("dense", "lrp-0", ""),
        ("seq-attention", "attnlrp", ""),
        ("dense", "epsilon", "LXT"),
    ):
        given = vectors.read(VECTORS / f"{name}.h5")
        if len(given.x) > 1:
            with pytest.raises(LRPError, match="several inputs"):
                libraries.dump("lxt", given, case)
            continue
        R, asked = libraries.dump("lxt", given, case), given.cases[case]
        verdict = judge(given.network, given.x, asked.rules, R, seed=asked.seed)
        assert verdict.agrees if not cause else any(cause in fit for fit in verdict["input"].fits), verdict


def test_zennit_and_captum_are_what_the_table_says(tmp_path, capsys):
    """Live. What the design notes say of both must hold, or one of them is wrong."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    for name in ("zennit", "captum"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    found = conformance.outcomes(
        ["dense", "dense-zero-outputs", "conv2d-stride", "net-conv-bn", "net-bn-padded-conv"],
        ["zennit", "captum"],
    )
    of = {(o.library, o.file, o.case): o for o in found}
    assert of["zennit", "conv2d-stride", "epsilon"].error < 1e-12
    assert of["captum", "conv2d-stride", "epsilon"].error < 1e-7
    assert of["zennit", "dense", "w-square"].why == "b^2 in the denominator of w^2"
    assert "dropped" in of["zennit", "dense-zero-outputs", "gamma"].why
    assert "weights only" in of["captum", "dense", "gamma"].why
    assert "weights only" in of["captum", "conv2d-stride", "z-plus"].why
    assert "its eps left behind" in of["zennit", "net-conv-bn", "epsilon fused"].why
    assert "treated as 'identity'" in of["zennit", "net-bn-padded-conv", "gamma fused"].why
    assert of["zennit", "net-bn-padded-conv", "epsilon-plus identity"].error < 1e-5
    assert of["captum", "dense", "flat"].error is None and "no rule Flat" in of["captum", "dense", "flat"].why
    text = conformance.table(found)
    assert text.startswith("| rule | zennit") and re.search(r"^\| epsilon \| ✓ \de-1\d \| ✓", text, re.M)
    assert (
        re.search(r"^\| gamma \| ~ \S+ \| ✗ \S+ ", text, re.M) and "- gamma, zennit: 2 of 3 agree; " in text
    )
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{conformance.MARKS[0]}\nold\n{conformance.MARKS[1]}\nafter\n")
    write_between(conformance.MARKS, text, readme)
    assert readme.read_text().startswith("before\n<!--") and "old" not in readme.read_text()
    readme.write_text("no marks")
    with pytest.raises(FileError, match="has not the marks"):
        write_between(conformance.MARKS, text, readme)
