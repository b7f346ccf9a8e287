"""Relevance of tokens and series, shown."""

import json
import re

import numpy as np
import pytest

from numpylrp import Network, save
from numpylrp.cli import main
from numpylrp.errors import FileError, LRPError, ShapeError
from numpylrp.layers import LSTM, Conv1D, Conv2D, Dense, Embedding, Flatten, GlobalAveragePool, Transpose
from numpylrp.tokens import (
    colours,
    kind_of,
    page,
    picture,
    series,
    table,
    terminal,
    text_of_bytes,
    time_is_first,
    vocabulary,
    words,
)


def test_colours_say_sign_and_size():
    made = colours([2.0, -2.0, 0.0, 1.0])
    assert made.tolist() == [[255, 0, 0], [0, 0, 255], [255, 255, 255], [255, 128, 128]]
    assert (colours([0.0, 0.0]) == 255).all()
    with pytest.raises(LRPError, match="NaN or infinite"):
        colours([np.nan])


def test_text_on_a_terminal_and_on_a_page(tmp_path):
    text = terminal(["good", "\x1b[31mbad"], [1.0, -1.0])
    assert re.findall(r"48;2;(\d+);(\d+);(\d+)m", text) == [("255", "0", "0"), ("0", "0", "255")]
    assert "\x1b[31m" not in text  # a token can't colour the terminal
    made = page([("class <a>", ["<script>", "b"], [0.5, -0.25])], tmp_path / "page.html")
    assert "<script>" not in made and "&lt;script&gt;" in made and 'title="-0.25"' in made
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == made
    with pytest.raises(ShapeError, match="2 tokens need as many values of relevance"):
        terminal(["a", "b"], [1.0])
    assert text_of_bytes(np.array([72, 10, 255, 256])) == ["H", "0a", "ff", "."]


def test_vocabularies(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\nthe\n##s\n", encoding="utf-8")
    known = vocabulary(tmp_path / "vocab.txt")
    assert words([1, 2, 0], known) == ["the", "##s", "[PAD]"]
    for bad in (3, -1, 0.5):
        with pytest.raises(LRPError, match=rf"token {bad:g} at 0 is none of the vocabulary's 0 .. 2"):
            words([bad], known)
    data = {"model": {"vocab": {"a": 0, "b": 2}}, "added_tokens": [{"content": "[CLS]", "id": 1}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    assert vocabulary(tmp_path / "tokenizer.json") == ["a", "[CLS]", "b"]
    vocabularies = ('[["a", -1.5]]', '{"a": "b"}', '{"a": 1000000000000}', '{"a": 3, "b": -1}')
    for text in ("{", "[]", '{"model": 3}', *(f'{{"model": {{"vocab": {v}}}}}' for v in vocabularies)):
        (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
        with pytest.raises(FileError, match="has no vocabulary of the package tokenizers"):
            vocabulary(tmp_path / "tokenizer.json")
    with pytest.raises(FileError, match="can't be read"):
        vocabulary(tmp_path / "nothing.txt")
    (tmp_path / "image.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not UTF-8"):
        vocabulary(tmp_path / "image.txt")


def test_a_series_has_a_row_a_channel(tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    x, R = rng.standard_normal((2, 20, 3))
    figure = series(x, R, tmp_path / "series.png", channels=["I", "II", "III"])
    assert [row.get_ylabel() for row in figure.axes] == ["I", "II", "III"]
    lines = [row.collections[0] for row in figure.axes]
    assert all(len(line.get_segments()) == 19 for line in lines)
    np.testing.assert_allclose(lines[1].get_segments()[4], [[4, x[4, 1]], [5, x[5, 1]]])
    shade = colours(R)[:, 1] / 255
    np.testing.assert_allclose(lines[1].get_colors()[4][:3], (shade[4] + shade[5]) / 2)
    assert (tmp_path / "series.png").read_bytes()[:4] == b"\x89PNG"
    other = series(x.T, R.T, time_first=False)
    np.testing.assert_allclose(other.axes[2].collections[0].get_segments(), lines[2].get_segments())
    with pytest.raises(ShapeError, match="must have one shape"):
        series(x, R[:5])


def reader(*layers, shape):
    return Network([(f"l{n}", layer) for n, layer in enumerate(layers)], shape)


LSTM_3 = LSTM(np.ones((8, 3)), np.ones((8, 2)))


@pytest.mark.parametrize(
    ("layers", "shape", "kind", "first"),
    [
        ((Embedding(np.ones((9, 2))),), (4,), "text", True),
        ((LSTM_3,), (4, 3), "series", True),
        ((Conv1D(np.ones((2, 3, 2))),), (3, 4), "series", False),
        ((Transpose((1, 0)), Conv1D(np.ones((2, 3, 2)))), (4, 3), "series", True),
        ((Dense(np.ones((2, 3))),), (4, 3), "series", True),
        ((Flatten(), Dense(np.ones((2, 12)))), (4, 3), "image", None),
        ((Conv2D(np.ones((1, 1, 2, 2))),), (1, 4, 3), "image", None),
        ((Dense(np.ones((2, 3))),), (3,), "table", None),
    ],
)
def test_what_an_input_is_shown_as(layers, shape, kind, first):
    network = reader(*layers, shape=shape)
    assert kind_of(network) == kind
    if first is not None:
        assert time_is_first(network) == first


def test_pictures_of_texts_and_rows(tmp_path):
    pytest.importorskip("matplotlib")
    made = picture(["good", "bad", "$x$"], [1.0, -1.0, 0.0], tmp_path / "text.png", width=10)
    axis = made.axes[0]
    assert [t.get_text() for t in axis.texts] == ["good", "bad", r"\$x\$"]
    boxes = axis.patches
    assert [b.get_width() for b in boxes] == [4, 3, 5]
    assert [b.get_facecolor()[:3] for b in boxes] == [(1, 0, 0), (0, 0, 1), (1, 1, 1)]
    rows = [round(b.get_y() + b.get_height() / 2) for b in boxes]
    assert rows == [0, 0, 1]  # a line of ten characters has no place for the third
    assert (tmp_path / "text.png").read_bytes()[:4] == b"\x89PNG"
    bars = table(["a", "b", "c"], [1.0, 2.0, 3.0], [0.5, -2.0, 1.0], most=2).axes[0]
    assert [t.get_text() for t in bars.get_yticklabels()] == ["b = 2", "c = 3"]
    assert [b.get_width() for b in bars.patches] == [-2, 1]


def test_texts_and_series_by_command(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    last = Transpose((1, 0)), GlobalAveragePool(), Dense(rng.standard_normal((2, 3)))
    save(reader(Embedding(rng.standard_normal((400, 3))), *last, shape=(4,)), tmp_path / "text.h5")
    np.save(tmp_path / "ids.npy", np.array([[1, 2, 3, 399], [0, 0, 1, 2]]))
    (tmp_path / "vocab.txt").write_text("".join(f"<w{n}>\n" for n in range(400)), encoding="utf-8")

    def call(*args):
        code = main([str(a) for a in args])
        return code, *capsys.readouterr()

    run = ["explain", tmp_path / "text.h5", tmp_path / "ids.npy", "--out", tmp_path / "out"]
    code, out, err = call(*run, "--tokens", tmp_path / "vocab.txt")
    assert code == 0 and "warning" not in err and "text.html" in out
    made = (tmp_path / "out" / "text.html").read_text(encoding="utf-8")
    assert "&lt;w399&gt;" in made and made.count("<h3>") == 2
    assert len(list((tmp_path / "out" / "heatmaps").glob("*.png"))) == 2
    (tmp_path / "short.txt").write_text("a\nb\n", encoding="utf-8")
    code, out, err = call(*run, "--tokens", tmp_path / "short.txt")
    assert code == 1 and "token 2 at 1 is none of the vocabulary's 0 .. 1" in err
    np.save(tmp_path / "bad.npy", np.array([[1, 2, 3, 400]]))
    code, out, err = call("explain", tmp_path / "text.h5", tmp_path / "bad.npy", "--out", tmp_path / "other")
    assert code == 1 and "tokens must be integers 0 .. 399, but 400 is at (0, 3)" in err
    save(reader(LSTM_3, *last[:2], Dense(np.ones((2, 2))), shape=(6, 3)), tmp_path / "series.h5")
    np.save(tmp_path / "x.npy", rng.standard_normal((2, 6, 3)))
    run = ["explain", tmp_path / "series.h5", tmp_path / "x.npy", "--out", tmp_path / "series"]
    assert call(*run, "--composite", "lstm")[0] == 0
    assert len(list((tmp_path / "series" / "heatmaps").glob("*.png"))) == 2
    code, out, err = call(*run, "--composite", "lstm", "--tokens", tmp_path / "vocab.txt")
    assert code == 1 and "--tokens is for texts, and the inputs are shown as series" in err
    code, out, err = call(*run, "--composite", "lstm", "--kind", "table")
    assert code == 1 and "inputs with 2 axes can't be shown as table" in err
