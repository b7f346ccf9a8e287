"""Relevance of tokens and series, shown."""

import json
import re

import numpy as np
import pytest

from numpylrp.errors import FileError, LRPError, ShapeError
from numpylrp.tokens import colours, page, series, terminal, text_of_bytes, vocabulary, words


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
