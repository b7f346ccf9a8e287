"""What README and pages say is so: code runs, links lead somewhere, files are as long as they say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import numpylrp

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for folder in (".", "notebooks", "tests/vectors", "tests/benchmarks", "weights", "numpylrp/convert")
    for path in (ROOT / folder).glob("*.md")
)
RUN = [ROOT / "README.md", *(ROOT / "notebooks").glob("extending.md")]


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", PAGES, ids=names(PAGES))
def test_links_lead_to_files(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, heading = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        page = (path.parent / target).resolve() if target else path
        assert page.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
            known = [re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert heading in known, link


@pytest.mark.parametrize("path", RUN, ids=names(RUN))
def test_python_of_a_page_runs(path, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the plot extra is missing")
    shutil.copytree(ROOT / "weights", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.S)
    assert blocks
    exec("\n".join(blocks), {"__name__": "page"})


def test_the_core_is_as_long_as_the_readme_says():
    rows = re.findall(
        r"^\| \[.*?\]\((.*?)\) \| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert {Path(path).name for path, _ in rows} == {
        "rules.py", "im2col.py", "windows.py", "dense.py", "conv.py", "network.py", "explanation.py"
    }  # fmt: skip
    for path, lines in rows:
        assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) == int(lines), path
    assert sum(int(lines) for _, lines in rows) <= 1300


def test_modules_are_there_after_importing_the_package_alone():
    code = "import numpylrp; numpylrp.treatments.compare_treatments; numpylrp.evaluate; numpylrp.seed.margin"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'plots'"):
        _ = numpylrp.plots
