"""Damaged and hostile files: nothing but an LRPError that names the file, one line on the command line."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import HERE, mutant, rgb, seeds, tried

from numpylrp import load, save
from numpylrp.cli import main
from numpylrp.errors import FileError, LRPError
from numpylrp.files import read_npz
from numpylrp.inputs import samples
from numpylrp.layers import Dense, LayerNorm
from numpylrp.network import Network

MUTANTS = int(os.environ.get("MUTANTS", 6))
"""Of each form; ``python tests/mutants.py 2000`` makes many, in processes with limits."""

FORMS = ("native", "npy", "npz", "hdf5 samples", "result", "images")
FORMS = (*FORMS, "keras h5", "keras", "keras weights", "keras json")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    found = seeds(folder)
    save(rgb(), folder / "rgb.h5")
    return folder, found


@pytest.mark.parametrize("form", FORMS)
def test_what_a_file_holds_ends_in_an_error_of_ours(form, base, tmp_path_factory):
    folder, found = base
    every = found[form]
    if not every:
        pytest.skip("the plot extra is missing")
    place = tmp_path_factory.mktemp("mutant")

    @settings(max_examples=MUTANTS)
    @given(st.randoms(use_true_random=False))
    def check(random):
        pick = random.randrange
        tried(pick, form, mutant(pick, every[pick(len(every))], place), folder)

    check()


def test_every_flipped_bit_of_our_files_is_noticed(base, tmp_path):
    """By the checksum or before: what is read is what was written, or nothing."""
    whole = (base[0] / "chain.h5").read_bytes()
    network = load(base[0] / "chain.h5")
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(len(whole), size=20):
        content = bytearray(whole)
        content[at] ^= 1 << rng.integers(8)
        (tmp_path / "net.h5").write_bytes(content)
        try:
            again = load(tmp_path / "net.h5")
        except LRPError:
            refused += 1
            continue
        for one, two in zip(network.nodes, again.nodes, strict=True):
            assert repr(one) == repr(two)
            for name, array in one.layer.arrays().items():
                assert np.array_equal(array, two.layer.arrays()[name])
    assert refused > 2


def test_a_changed_result_is_not_evaluated(base, tmp_path, capsys):
    folder, content = base[0], bytearray((base[0] / "relevance.h5").read_bytes())
    import h5py

    with h5py.File(folder / "relevance.h5") as file:
        at = content.find(file["attribution"][0, 0, 0].tobytes())
    assert at > 0
    content[at] ^= 1
    (tmp_path / "changed.h5").write_bytes(content)
    model, x = str(folder / "chain.h5"), str(folder / "x.npy")
    words = ["evaluate", model, x, "--measures", "sparsity", "--relevance"]
    assert main([*words, str(folder / "relevance.h5")]) == 0
    assert main([*words, str(tmp_path / "changed.h5")]) == 1
    err = capsys.readouterr().err
    assert "changed.h5 is damaged, or was changed since it was written" in err and err.count("\n") == 1
    assert main(["compare", model, str(tmp_path / "changed.h5"), "--inputs", x]) == 1
    assert "changed.h5 is damaged" in capsys.readouterr().err


def test_what_is_wrong_with_samples_names_their_file(base, tmp_path):
    network = load(base[0] / "chain.h5")
    x = np.zeros((3, 2, 7, 8))
    x[1, 0, 2, 3] = np.nan
    np.save(tmp_path / "nan.npy", x)
    np.save(tmp_path / "far.npy", np.full_like(x, 9.0))
    with pytest.raises(LRPError, match=r"nan\.npy: .* NaN or infinite, first at \(1, 0, 2, 3\)"):
        samples([tmp_path / "nan.npy"], network)[1:3]
    with pytest.raises(LRPError, match=r"far\.npy: the inputs reach from 9 to 9"):
        samples([tmp_path / "far.npy"], network)[0:1]


def test_an_archive_of_arrays_holds_arrays_only(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x", b"no array")
    with pytest.raises(FileError, match=r"x\.npz: 'x' is no array"):
        read_npz(tmp_path / "x.npz")
    (tmp_path / "y.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-5])
    with pytest.raises(FileError, match=r"y\.npz .*no zip archive, or truncated"):
        read_npz(tmp_path / "y.npz")
    np.savez(tmp_path / "z.npz", a=np.arange(3))
    (tmp_path / "z.npy").write_bytes((tmp_path / "z.npz").read_bytes())
    with pytest.raises(FileError, match=r"z\.npy can't be read as \.npy: it is an archive"):
        samples([tmp_path / "z.npy"], load(HERE.parent / "weights" / "mnist_fc.h5"))


def test_values_too_large_for_float32_are_refused():
    network = Network([("fc", Dense([[1.0, 1.0]]))], (2,)).astype(np.float32)
    with pytest.raises(LRPError, match="NaN or infinite, first at \\(0, 1\\)"):
        network.forward([[1.0, -1e300]])


def test_an_axis_stands_once():
    with pytest.raises(LRPError, match=r"LayerNorm: axes \(1, -1\) name an axis twice"):
        Network([("norm", LayerNorm(axes=(1, -1)))], (2, 3))
