"""Pictures: colours by hand, and files that are what they should be."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from numpylrp import plot
from numpylrp.errors import ShapeError

pytest.importorskip("matplotlib", reason="the plot extra is missing")
Image = pytest.importorskip("PIL.Image", reason="the plot extra is missing")


def test_colours_are_symmetric_about_white():
    R = np.array([[2.0, 1.0, 0.0, -1.0, -4.0]])
    image = plot.heatmap(R)[0].astype(int)
    assert image[2].tolist() == [255, 255, 255]
    assert image[4].tolist() == (plot.COLOURS[0] * 255).round().tolist()  # the largest has the full colour
    assert (image[:2, 0] > image[:2, 2]).all() and (image[3:, 2] > image[3:, 0]).all()
    assert image[0].tolist() == plot.heatmap(R / 7)[0, 0].tolist()
    full = plot.heatmap(R, limit=1.0)[0]
    assert full[0].tolist() == full[1].tolist() == (plot.COLOURS[-1] * 255).round().astype(int).tolist()


def test_no_relevance_is_white():
    assert (plot.heatmap(np.zeros((1, 3, 3))) == 255).all()


def test_channels_are_summed_and_bad_shapes_refused():
    R = np.random.default_rng(0).standard_normal((3, 4, 5))
    assert_array_equal(plot.flat_map(R), R.sum(0))
    assert_array_equal(plot.flat_map(R.transpose(1, 2, 0)), R.transpose(1, 2, 0).sum(2))
    with pytest.raises(ShapeError, match=r"not of shape \(1, 1, 1, 1\)"):
        plot.heatmap(np.zeros((1, 1, 1, 1)))


def test_png_has_whole_pixels(tmp_path):
    image = plot.heatmap(np.arange(12.0).reshape(3, 4))
    plot.save_png(image, tmp_path / "a.png", least=20)
    with Image.open(tmp_path / "a.png") as picture:
        assert_array_equal(np.asarray(picture)[::5, ::5], image)
        assert picture.size == (20, 15)
    plot.save_png(plot.heatmap(np.arange(300.0)), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as picture:
        assert picture.size == (300, 24)


def test_sheets_are_written_and_repeatable(tmp_path):
    r = np.random.default_rng(0)
    x, R = r.random((3, 1, 8, 8)), r.standard_normal((3, 1, 8, 8))
    for name in ("a", "b"):
        plot.overview(
            x, {"one": R, "two": -R}, ["first", "second", "third"], "title", tmp_path / f"{name}.png"
        )
        plot.tiles(x, R, ["p", "q", "r"], path=tmp_path / f"t{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "ta.png").read_bytes() == (tmp_path / "tb.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 200
