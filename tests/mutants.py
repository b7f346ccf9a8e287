"""Damaged and hostile files of every form that is read, and what may come of them.

A mutant is made by choices: `pick(n)` gives one of 0 .. n - 1, drawn by Hypothesis (test_mutants.py) or, at
length, by a generator of random numbers::

    python tests/mutants.py COUNT [FORM ...]        # COUNT mutants of each form, in processes with limits
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import struct
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from networks import chain, graph

from numpylrp import explain, load, save
from numpylrp.cli import main
from numpylrp.errors import LRPError
from numpylrp.inputs import samples
from numpylrp.jobs.relevance import explain_into

Pick = Callable[[int], int]
HERE = Path(__file__).parent
KERAS = HERE / "keras"


# ---------------------------------------------------------------- bytes


def damaged(pick: Pick, content: bytes) -> bytes:
    """Bytes flipped, cut off, left out, put in, written twice."""
    made = bytearray(content)
    for _ in range(1 + pick(3)):
        at = pick(len(made)) if made else 0
        some = slice(at, at + 1 + pick(64))
        how = pick(8)
        if how < 3 and made:
            made[at] ^= 1 << pick(8)
        elif how == 3 and made:
            made[at] = (0, 255, 127, 128, 1)[pick(5)]
        elif how == 4:
            del made[at:]
        elif how == 5:
            del made[some]
        elif how == 6:
            made[some] = bytes(len(made[some]))
        else:
            made[at:at] = made[some]
    return bytes(made)


# ---------------------------------------------------------------- JSON

AWKWARD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(float("nan"), float("inf"), "", "x", "same", "valid", "relu", "Dense", "conv2d", "input", "\x1b[31m"),
    *("$\\frac{$", "ü" * 300, "../../x", "a/b", ".", "\x00", "\ud800", [], {}, [[]], [None], [-1], [0, 0]),
    *([2, 2], [1, 2, 3], [[1, 1], [1, 1]], ["x"], [["x", 0, 0]], [["x", 0, 0, {}]], {"class_name": "Dense"}),
    *({"class_name": "Dense", "config": {}}, {"config": None}, {"class_name": "__tensor__", "config": {}}),
    *({"class_name": "Lambda", "config": {"function": "x"}}, {"name": "x"}, {"items": []}),
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of all values in a nesting."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, v in inner for found in places(v, (*path, key)))]


def _within(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def _deep(value: Any, depth: int, as_list: bool) -> Any:
    for _ in range(depth):
        value = [value] if as_list else {"config": value}
    return value


def reworded(pick: Pick, value: Any) -> Any:
    """A JSON value with some values replaced, left out, renamed, swapped, put in twice, nested deeply."""
    for _ in range(1 + pick(2)):
        path = (every := places(value))[pick(len(every))]
        if not path:
            continue
        holder, key = _within(value, path[:-1]), path[-1]
        how = pick(8)
        if how < 3:
            holder[key] = AWKWARD[pick(len(AWKWARD))]
        elif how == 3:
            del holder[key]
        elif how == 4 and isinstance(holder, dict):
            holder[("x", f"{key}_", "name", "layers", "dtype")[pick(5)]] = holder.pop(key)
        elif how == 5:
            other = every[pick(len(every))]
            holder[key] = json.loads(json.dumps(_within(value, other)))
        elif how == 6 and isinstance(holder, list):
            holder.insert(pick(len(holder) + 1), json.loads(json.dumps(holder[key])))
        elif how == 7:
            holder[key] = _deep(holder[key], (1, 3, 60, 900)[pick(4)], bool(pick(2)))
    return value


def reworded_text(pick: Pick, text: str | bytes) -> str:
    """The same of a text; sometimes nested more deeply than anything that reads it."""
    text = text.decode() if isinstance(text, bytes) else text
    if not pick(40):
        return "[" * 10**5 + "]" * 10**5
    return json.dumps(reworded(pick, json.loads(text)))


# ---------------------------------------------------------------- HDF5


def rearranged(pick: Pick, content: bytes) -> bytes:
    """An HDF5 file with attributes, datasets and groups changed, left out, renamed, linked in a circle."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as opened:
        for _ in range(1 + pick(2)):
            names: list[str] = ["/"]
            opened.visit(names.append)
            items = [opened[name] for name in names]
            item = items[pick(len(items))]
            if pick(3) and len(item.attrs):
                _attribute(pick, item)
            elif isinstance(item, h5py.Dataset):
                _dataset(pick, item)
            elif item.name != "/":
                _group(pick, opened, item, items)
    return file.getvalue()


def _attribute(pick: Pick, item: Any) -> None:
    name = list(item.attrs)[pick(len(item.attrs))]
    value = item.attrs[name]
    how = pick(6)
    if how == 0:
        del item.attrs[name]
    elif how == 1:
        item.attrs[f"{name}_"] = value
    elif how == 2:
        _set(item, name, AWKWARD[pick(len(AWKWARD))])
    elif how == 3:
        _set(item, name, (h5py.Empty("f"), np.ones(3), b"\xff\xfe", 2, 1e300, np.array([b"x", b""]))[pick(6)])
    elif isinstance(value, (str, bytes)) and value[:1] in ("{", "[", b"{", b"["):
        _set(item, name, reworded_text(pick, value))
    elif isinstance(value, np.ndarray) and value.ndim == 1 and len(value):
        k = pick(len(value))
        _set(item, name, [np.delete(value, k), np.insert(value, k, value[k]), np.roll(value, 1)][pick(3)])


def _set(item: Any, name: str, value: Any) -> None:
    with contextlib.suppress(TypeError, ValueError, OverflowError, OSError, RuntimeError, UnicodeError):
        item.attrs[name] = value


def _dataset(pick: Pick, data: h5py.Dataset) -> None:
    group, name = data.parent, data.name.split("/")[-1]
    value = data[()]
    keep, how = {k: v for k, v in data.attrs.items() if not isinstance(v, h5py.Empty)}, pick(11)
    array = np.zeros(()) if isinstance(value, h5py.Empty) else np.asarray(value)
    filled = (np.nan, np.inf, 1e300, -1.0, 1e-320, 0)[pick(6)]
    made = [
        lambda: array.ravel(),
        lambda: array.T,
        lambda: array[..., None],
        lambda: array[:0],
        lambda: array.astype("f2") if array.dtype.kind == "f" else array.astype("i1"),
        lambda: np.full(array.shape, filled) if array.dtype.kind == "f" else array[::-1],
        lambda: array.astype("S8"),
        lambda: array.astype("c8"),
        lambda: np.ones((*array.shape, 3)),
        lambda: h5py.Empty("f"),
        lambda: None,
    ][how]()
    del group[name]
    if made is not None:
        group[name] = made
        for key, text in keep.items():
            _set(group[name], key, text)
    elif pick(2):  # never written, and larger than this machine
        group.create_dataset(name, (1 + pick(3), *([10**6] * pick(4))), "f4", chunks=True, maxshape=None)


def _group(pick: Pick, file: h5py.File, group: h5py.Group, items: list) -> None:
    name = group.name
    how = pick(6)
    if how == 0:
        del file[name]
    elif how == 1:
        file.move(name, f"{name}_")
    elif how == 2 and "again" not in group:
        group["again"] = file["/"] if pick(2) else group.parent
    elif how == 3 and "soft" not in group:
        group["soft"] = h5py.SoftLink("/x" if pick(2) else name)
    elif how == 4 and "x" not in group:
        group["x"] = items[pick(len(items))]
    elif "elsewhere" not in group:
        group["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/x")


# ---------------------------------------------------------------- archives, arrays, images

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def repacked(pick: Pick, content: bytes, change: Callable[[Pick, str, bytes], bytes]) -> bytes:
    """A zip archive with one member changed, left out, renamed, there twice, or packed otherwise."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = list(members)[pick(len(members))]
    made, method, how = io.BytesIO(), METHODS[pick(4)], pick(8)
    with zipfile.ZipFile(made, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, value in members.items():
            if key != name:
                archive.writestr(key, value)
            elif how == 0:
                continue
            elif how == 1:
                archive.writestr(("../x", "/x", "config.json", f"{key}.x")[pick(4)], value)
            elif how == 2:
                archive.writestr(key, value)
                archive.writestr(key, b"" if pick(2) else value)
            elif how == 3:
                archive.writestr(key, bytes(10**7))
            else:
                archive.writestr(key, change(pick, key, value))
    return damaged(pick, made.getvalue()) if pick(4) == 0 else made.getvalue()


def _member(pick: Pick, name: str, content: bytes) -> bytes:
    if name.endswith(".json"):
        return reworded_text(pick, content).encode("utf-8", "surrogatepass")
    if name.endswith(".h5"):
        return rearranged(pick, content)
    return npy(pick, content)


def npy(pick: Pick, content: bytes) -> bytes:
    """An array with another header, or of another kind."""
    how = pick(6)
    if how < 3 and content[:6] == b"\x93NUMPY":
        size = struct.unpack("<H", content[8:10])[0]
        header = content[10 : 10 + size]
        parts = re.split(rb"(\W+)", header)
        words = (
            b"'O'",
            b"-1",
            b"99999999999",
            b"True",
            b"(",
            b"'<f8'",
            b"'shape'",
            b"1" * 5000,
            b"",
            b"'<U9'",
        )
        parts[pick(len(parts))] = words[pick(len(words))]
        header = b"".join(parts)
        return content[:8] + struct.pack("<H", len(header) % 2**16) + header + content[10 + size :]
    if how == 3:
        return damaged(pick, content)
    array = np.load(io.BytesIO(content))
    kinds = [array.astype("c8"), array.astype("S3"), array[:0], array.ravel(), array * np.nan, array[()].T]
    kinds += [np.array([{"a": 1}], object), np.array(1.0), array.astype("M8[s]"), array.astype(bool)]
    kinds += [np.array([(1, 2.0)], "i4,f8"), array.astype("f2"), array.astype(">f8"), array.astype("g")]
    made = io.BytesIO()
    np.save(made, kinds[pick(len(kinds))], allow_pickle=True)
    return made.getvalue()


def png(pick: Pick, content: bytes) -> bytes:
    """A PNG file with another size, kind or order of chunks, whose sums are right."""
    chunks, at = [], 8
    while at < len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        chunks.append([content[at + 4 : at + 8], bytearray(content[at + 8 : at + 8 + size])])
        at += size + 12
    for _ in range(1 + pick(2)):
        k, how = pick(len(chunks)), pick(5)
        if how == 0:
            sizes = (0, 1, 2, 5, 2**16, 2**31 - 1, 2**32 - 1)
            chunks[0][1][:8] = struct.pack(">II", sizes[pick(7)], sizes[pick(7)])
        elif how == 1:
            chunks[k][1] = bytearray(damaged(pick, bytes(chunks[k][1])))
        elif how == 2:
            chunks.insert(k, chunks[pick(len(chunks))])
        elif how == 3 and len(chunks) > 1:
            del chunks[k]
        else:
            chunks.insert(k, [(b"tEXt", b"iCCP", b"tRNS", b"PLTE", b"acTL")[pick(5)], bytearray(pick(40))])
    parts = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return content[:8] + b"".join(parts)


# ---------------------------------------------------------------- the forms

MUTATIONS: dict[str, Callable[[Pick, bytes], bytes]] = {
    ".h5": rearranged,
    ".json": lambda pick, content: reworded_text(pick, content).encode("utf-8", "surrogatepass"),
    ".keras": lambda pick, content: repacked(pick, content, _member),
    ".npz": lambda pick, content: repacked(pick, content, _member),
    ".npy": npy,
    ".png": png,
    ".jpg": damaged,
}


def seeds(folder: Path) -> dict[str, list[list[Path]]]:
    """For each form some whole files: the one that is changed, and those that stand beside it."""
    rng = np.random.default_rng(0)
    networks = {"chain": chain(), "graph": graph()}
    for name, network in networks.items():
        save(network, folder / f"{name}.h5")
    x = rng.uniform(-4, 4, (3, 2, 7, 8))
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x, labels=np.arange(3))
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"], file["labels"] = x, np.arange(3)
    explain_into(folder / "relevance.h5", networks["chain"], samples([folder / "x.npy"], networks["chain"]))
    found: dict[str, list[list[Path]]] = {
        "native": [[folder / "chain.h5"], [folder / "graph.h5"]],
        "npy": [[folder / "x.npy"]],
        "npz": [[folder / "x.npz"]],
        "hdf5 samples": [[folder / "x.h5"]],
        "result": [[folder / "relevance.h5"]],
        "images": _pictures(folder, rng),
    }
    found["native"] += [[path] for path in sorted((HERE / "exported").glob("[nps]*.h5"))]
    found["native"] += [[_unchecked(path, folder)] for (path,) in found["native"]]
    found["keras h5"] = [[path] for path in sorted(KERAS.glob("[!c]*.h5"))]
    found["keras"] = [[path] for path in sorted(KERAS.glob("*.keras"))]
    with tarfile.open(KERAS / "forms.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    found["keras h5"] += [[path] for path in sorted(folder.glob("[acsfio]*-2.1[25].h5"))]
    found["keras"] += [[path] for path in sorted(folder.glob("[acsfio]*-*.keras"))]
    found["keras weights"] = [
        [path, path.with_name(re.sub(r"(weights\.)?h5$", "json", path.name))]
        for path in (*sorted(folder.glob("[acsfio]*-*.weights.h5")), *sorted(folder.glob("*.order.h5")))
    ]
    found["keras json"] = [pair[::-1] for pair in found["keras weights"]]
    return found


def _unchecked(path: Path, folder: Path) -> Path:
    """The same file without its checksum, so that what is changed in it is read."""
    made = Path(shutil.copy(path, folder / f"unchecked_{path.name}"))
    with h5py.File(made, "r+") as file:
        file.attrs.pop("checksum", None)
    return made


def _pictures(folder: Path, rng: Any) -> list[list[Path]]:
    try:
        from PIL import Image
    except ImportError:
        return []
    pixels = rng.integers(0, 256, (7, 8, 3), np.uint8)
    made = []
    for name, mode in (("a.png", "RGB"), ("b.png", "P"), ("c.png", "RGBA"), ("d.png", "L"), ("e.jpg", "RGB")):
        Image.fromarray(pixels).convert(mode).save(folder / name)
        made.append([folder / name])
    return made


def mutant(pick: Pick, files: list[Path], folder: Path) -> Path:
    """The first file changed, and the others, in another folder; its path."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    first, *others = files
    for path in others:
        (folder / path.name).write_bytes(path.read_bytes())
    content = first.read_bytes()
    change = MUTATIONS[first.suffix] if pick(4) else damaged
    (folder / first.name).write_bytes(change(pick, content))
    return folder / first.name


# ---------------------------------------------------------------- what may come of them


class Outcome(AssertionError):
    """What must not come of a file."""


def one_line(words: list[str], name: str) -> int:
    """The exit status of a command, which must say in one line what is wrong with which file."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    told = err.getvalue().splitlines()
    said = [line for line in told if not line.startswith("numpylrp: warning: ")]
    if not (out.getvalue() + err.getvalue()).replace("\n", "").replace("\r", "").isprintable():
        raise Outcome(
            f"{words[0]} printed what a terminal obeys: {(out.getvalue() + err.getvalue())!r:.2000}"
        )
    if status == 1 and not (words[0] == "compare" and out.getvalue()):
        if len(said) != 1 or not said[0].startswith("numpylrp: ") or name not in said[0]:
            raise Outcome(f"{words[0]} said {told}")
        if len(said[0]) > 1000:
            raise Outcome(f"{words[0]} said {len(said[0])} characters: {said[0]:.1200}")
    if status not in (0, 1):
        raise Outcome(f"{words[0]} ended with {status}")
    return status


def tried(pick: Pick, form: str, path: Path, base: Path) -> None:
    """Read a file in one of the ways in which its form is read; anything but an LRPError is an error."""
    name = path.with_suffix("").with_suffix("").name
    model, x, out = str(base / "chain.h5"), str(base / "x.npy"), str(path.parent / "out")
    at = path if path.suffix != ".json" else next(p for p in path.parent.iterdir() if p != path)
    ways = {
        "models": (["inspect", at], *([word, at, "--out", f"{out}.h5"] for word in ("fuse", "convert"))),
        "result": (
            ["evaluate", model, x, "--relevance", path, "--measures", "sparsity"],
            *(["compare", base / "relevance.h5", path], ["compare", model, path, "--inputs", x]),
            ["explain", model, x, "--heatmaps", "0", "--out", path.parent],
        ),
        "images": (["audit", base / "rgb.h5", path, "--resize"],),
        "samples": (
            *(["explain", model, path, "--heatmaps", "0", "--out", out], ["audit", model, path]),
            ["evaluate", model, path, "--composite", "epsilon", "--measures", "sparsity"],
            ["evaluate", model, x, "--composite", "epsilon", "--masks", path],
        ),
    }
    kind = "models" if form.startswith(("native", "keras")) else form if form in ways else "samples"
    if kind == "models":
        _model(at)
        if pick(4):
            return
    words = ways[kind][pick(len(ways[kind]))]
    one_line([*map(str, words)], name)


def _model(path: Path) -> None:
    try:
        network = load(path)
    except LRPError as error:
        if path.with_suffix("").with_suffix("").name not in str(error):
            raise Outcome(f"load did not name the file: {error}") from error
        return
    sizes = [int(np.prod(shape)) for shape in network.shapes.values() if None not in shape]
    if len(sizes) < len(network.shapes) or max(sizes) > 10**5:
        return
    rng = np.random.default_rng(0)
    x = {key: rng.uniform(0, 1, (1, *shape)) for key, shape in network.inputs.items()}
    with contextlib.suppress(LRPError):
        output = network.outputs[0]
        made = network.record(x)[output]
        explain(network, x, seed=np.ones_like(made), output=output)


def at_length(count: int, form: str, start: int = 0) -> None:
    """Many mutants of one form, each child process with limits making some of them."""
    import multiprocessing
    import resource
    import signal

    def work(first: int, found: Any, now: Any) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        import random

        for number in range(first, start + count):
            now.value = number
            pick = random.Random(f"{form} {number}").randrange
            files = every[pick(len(every))]
            signal.alarm(20)
            path = None
            try:
                path = mutant(pick, files, folder)
                tried(pick, form, path, base)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                import traceback

                where = traceback.extract_tb(error.__traceback__)
                own = [f for f in where if "numpylrp" in f.filename and "tests" not in f.filename]
                at = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
                if path is None:
                    at = f"making {where[-1].lineno}"
                found.put((number, files[0].name, f"{type(error).__name__} {at}: {error!s:.300}"))
            signal.alarm(0)
        now.value = start + count

    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        base, folder = Path(place) / "base", Path(place) / "mutant"
        base.mkdir(), folder.mkdir()
        every = seeds(base)[form]
        if form == "images":
            save(rgb(), base / "rgb.h5")
        now, found, first = context.Value("q", start), context.Queue(), start
        kinds: dict[str, list] = {}
        while first < start + count:
            child = context.Process(target=work, args=(first, found, now))
            child.start()
            while child.is_alive() or not found.empty():
                with contextlib.suppress(Exception):
                    number, name, said = found.get(timeout=0.2)
                    kinds.setdefault(re.sub(r"\d+", "0", said)[:70], []).append((number, name, said))
            child.join()
            if now.value < start + count or child.exitcode:
                said = f"ended with {child.exitcode}"
                kinds.setdefault(said, []).append((now.value, "?", said))
            first = now.value + 1
    print(f"{form}: {count} mutants, {sum(map(len, kinds.values()))} wrong, {len(kinds)} kinds", flush=True)
    for some in sorted(kinds.values(), key=len, reverse=True):
        print(f"  {len(some)} x, such as {some[0]}", flush=True)


def rgb() -> Any:
    """A network that takes small images in colour."""
    from numpylrp import Network
    from numpylrp.layers import Dense, Flatten

    weight = np.random.default_rng(0).standard_normal((3, 168))
    return Network([("flat", Flatten()), ("fc", Dense(weight))], (3, 7, 8), metadata={"input_range": [0, 1]})


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(HERE))
    forms = sys.argv[2:] or ["native", "npy", "npz", "hdf5 samples", "result", "images"]
    forms = sys.argv[2:] or [*forms, "keras h5", "keras", "keras weights", "keras json"]
    for one in forms:
        at_length(int(sys.argv[1]), one)
