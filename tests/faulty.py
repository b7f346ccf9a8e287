"""A second implementation of LRP, in plain loops and with bugs that can be switched on for the judge to name.

It shares no code with the library: a convolution is a matrix that loops fill, and a rule is the sum in its
paper. `NETWORK` describes the network; `library` makes the library's of it, `run` walks through it.

    PYTHONPATH=. python tests/faulty.py        the share of planted faults that is named, by letter
"""

from __future__ import annotations

import sys
import time
from collections import Counter

import numpy as np

EPS, GAMMA, LOW, HIGH = 0.25, 0.5, -3.0, 3.0
SHAPES = {
    "input": (3, 6, 6),
    "conv1": (4, 6, 6),
    "pool": (4, 3, 3),
    "conv3": (2, 3, 3),
    "cat": (6, 3, 3),
    "conv4": (5, 2, 2),
}
SHAPES |= {
    "bn1": (4, 6, 6),
    "relu1": (4, 6, 6),
    "conv2": (4, 3, 3),
    "bn2": (4, 3, 3),
    "sum": (4, 3, 3),
    "relu2": (4, 3, 3),
}
SHAPES |= {"relu4": (5, 2, 2), "flatten": (20,), "fc1": (8,), "relu5": (8,), "fc2": (4,)}
GRAPH = {
    "conv1": ("input",), "bn1": ("conv1",), "relu1": ("bn1",), "pool": ("relu1",),
    "conv2": ("pool",), "bn2": ("conv2",), "sum": ("bn2", "pool"), "relu2": ("sum",),
    "conv3": ("pool",), "cat": ("relu2", "conv3"), "conv4": ("cat",), "relu4": ("conv4",),
    "flatten": ("relu4",), "fc1": ("flatten",), "relu5": ("fc1",), "fc2": ("relu5",),
}  # fmt: skip
CONVS = {"conv1": (1, 1), "conv2": (1, 1), "conv3": (1, 0), "conv4": (2, 1)}  # stride, padding
RULES = {
    "conv1": "z-box", "conv2": "alpha-beta", "conv3": "z-plus", "conv4": "gamma", "fc1": "epsilon",
    "fc2": "epsilon",
    "bn1": "epsilon", "bn2": "epsilon", "sum": "epsilon",
}  # fmt: skip


def parameters(seed=0):
    """Weights and biases."""
    r = np.random.default_rng(seed)
    sizes = {
        "conv1": (4, 3, 3, 3),
        "conv2": (4, 4, 3, 3),
        "conv3": (2, 4, 1, 1),
        "conv4": (5, 6, 3, 3),
        "fc1": (8, 20),
        "fc2": (4, 8),
    }
    found = {}
    for name, shape in sizes.items():
        found[name] = (
            r.standard_normal(shape) / np.sqrt(np.prod(shape[1:])),
            0.3 * r.standard_normal(shape[0]),
        )
    for name in ("bn1", "bn2"):
        gamma, beta, mean, variance = (
            r.uniform(0.5, 1.5, 4),
            r.normal(0, 0.5, 4),
            r.normal(0, 0.3, 4),
            r.uniform(0.2, 2, 4),
        )
        found[name] = gamma, beta, mean, variance, 0.05
    return found


def library(p, rules=RULES):
    """The library's network and rules."""
    from numpylrp import Network
    from numpylrp import layers as L
    from numpylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, ZBox, ZPlus

    layers = []
    for name, inputs in GRAPH.items():
        if name in CONVS:
            layer = L.Conv2D(*p[name], stride=CONVS[name][0], padding=CONVS[name][1])
        elif name.startswith("bn"):
            layer = L.BatchNorm(*p[name])
        elif name.startswith("fc"):
            layer = L.Dense(*p[name])
        else:
            layer = {
                "pool": L.MaxPool2D(2),
                "sum": L.Add(),
                "cat": L.Concatenate(),
                "flatten": L.Flatten(),
            }.get(name, L.ReLU())
        layers.append((name, layer, inputs))
    known = {
        "flat": Flat(),
        "z-box": ZBox(LOW, HIGH),
        "epsilon": Epsilon(EPS),
        "gamma": Gamma(GAMMA),
        "z-plus": ZPlus(),
        "alpha-beta": AlphaBeta(2.0, 1.0),
    }
    return Network(layers, SHAPES["input"]), {name: known[rule] for name, rule in rules.items()}


# ---------------------------------------------------------------- matrices by loops


def conv_matrix(w, bias, shape, stride, padding, flip=False, swap=False):
    """The convolution as (inputs, outputs), and its bias for each output."""
    outputs, inputs, k, _ = w.shape
    rows, cols = shape[1:]
    high, wide = ((n + 2 * padding - k) // stride + 1 for n in (rows, cols))
    W, b = np.zeros((inputs * rows * cols, outputs * high * wide)), np.zeros(outputs * high * wide)
    for o in range(outputs):
        for y in range(high):
            for x in range(wide):
                at = (o * high + y) * wide + x
                b[at] = bias[o]
                for i in range(inputs):
                    for u in range(k):
                        for v in range(k):
                            row, col = y * stride + u - padding, x * stride + v - padding
                            if 0 <= row < rows and 0 <= col < cols:
                                a, c = (k - 1 - u, k - 1 - v) if flip else (v, u) if swap else (u, v)
                                W[(i * rows + row) * cols + col, at] += w[o, i, a, c]
    return W, b


def norm_scale(p, name, bugs):
    """Scale and shift of a batch normalization for each channel."""
    gamma, beta, mean, variance, eps = p[name]
    below = np.sqrt(variance + eps)
    if "bn no eps" in bugs:
        below = np.sqrt(variance)
    if "bn variance squared" in bugs:
        below = np.sqrt(variance**2 + eps)
    if "bn eps outside" in bugs:
        below = np.sqrt(variance) + eps
    if "bn no root" in bugs:
        below = variance + eps
    if "bn no mean" in bugs:
        mean = 0 * mean
    if "bn no beta" in bugs:
        beta = 0 * beta
    if "bn no gamma" in bugs:
        gamma = np.ones(4)
    if "bn swapped" in bugs:
        gamma, beta = beta, gamma
    if "bn eps 1e-3" in bugs:
        below = np.sqrt(variance + 1e-3)
    return gamma / below, beta - gamma / below * mean


class Run:
    """One sample forward and back, with bugs."""

    def __init__(self, p, bugs=(), fused=False, rules=RULES):
        self.rules = rules
        self.p, self.bugs, self.fused = p, set(bugs), fused
        self.maps = {}
        for name, (w, b) in ((n, p[n]) for n in (*CONVS, "fc1", "fc2")):
            if name in CONVS:
                shape = SHAPES[GRAPH[name][0]]
                s, q = CONVS[name]
                self.maps[name] = conv_matrix(
                    w, b, shape, s, q, "flip forward" in self.bugs, "swap forward" in self.bugs
                )
            else:
                self.maps[name] = w.T.copy(), b.copy()
            if "no bias forward" in self.bugs:
                self.maps[name] = self.maps[name][0], 0 * self.maps[name][1]
        for name in ("bn1", "bn2"):
            size = int(np.prod(SHAPES[name][1:]))
            g, s = norm_scale(p, name, self.bugs)
            g, s = (np.repeat(a, size) for a in (g, s))
            self.maps[name] = np.diag(g), s
        if fused:
            for conv, bn in (("conv1", "bn1"), ("conv2", "bn2")):
                W, b = self.maps[conv]
                G, s = self.maps[bn]
                shift = 0 if "fused shift lost" in self.bugs else s
                b = b if "fused bias not scaled" in self.bugs else b @ G
                self.maps[conv] = W @ G, b + shift
                self.maps[bn] = np.eye(len(s)), 0 * s

    # ------------------------------------------------------------ forward

    def forward(self, x):
        bugs = self.bugs
        v = {"input": x.ravel().astype(float)}
        image = x
        for name, f in (
            ("times 255", lambda a: a * 255), ("divided 255", lambda a: a / 255),
            ("2x-1", lambda a: 2 * a - 1),
            ("bgr", lambda a: a[::-1]), ("nhwc read", lambda a: np.moveaxis(a, 0, -1).reshape(a.shape)),
            ("standardized", lambda a: (a - a.mean()) / a.std()), ("mirrored", lambda a: a[..., ::-1]),
        ):  # fmt: skip
            if name in bugs:
                image = f(image)
        v["input"] = image.ravel().astype(float)
        for name, inputs in GRAPH.items():
            x = v[inputs[0]]
            if name in self.maps:
                W, b = self.maps[name]
                v[name] = x @ W + b
            elif name.startswith("relu"):
                v[name] = (
                    x
                    if "no relu" in bugs
                    else np.where(x > 0, x, 0.01 * x)
                    if "leaky" in bugs
                    else np.maximum(x, 0)
                )
            elif name == "pool":
                v[name] = self.pooled(x)
            elif name == "sum":
                v[name] = x + v[inputs[1]]
                if "sum first branch forward" in bugs:
                    v[name] = x
            elif name == "cat":
                pair = [v[n] for n in inputs]
                v[name] = np.concatenate(pair[::-1] if "cat order forward" in bugs else pair)
            elif name == "flatten":
                v[name] = np.moveaxis(x.reshape(5, 2, 2), 0, -1).ravel() if "flatten last" in bugs else x
            if name == "relu5" and "dropout" in bugs:
                v[name] = v[name] * np.array([1, 0, 1, 1, 0, 1, 1, 1]) / 0.75
            if name == "relu5" and "dropout scaled" in bugs:
                v[name] = v[name] * 0.5
        return v

    def pooled(self, x):
        image, out = x.reshape(SHAPES["relu1"]), np.zeros(SHAPES["pool"])
        for at in np.ndindex(*out.shape):
            window = [image[at[0], 2 * at[1] + i, 2 * at[2] + j] for i in (0, 1) for j in (0, 1)]
            out[at] = sum(window) / 4 if "average pool forward" in self.bugs else max(window)
        return out.ravel()

    # ------------------------------------------------------------ back

    def seed(self, y, target):
        bugs = self.bugs
        hot = np.zeros(4)
        hot[target] = 1
        p = np.exp(y - y.max()) / np.exp(y - y.max()).sum()
        if "other class" in bugs:
            hot = np.roll(hot, 1)
        if "predicted class" in bugs:
            hot = (np.arange(4) == y.argmax()) * 1.0
        if "seed 1" in bugs:
            return hot
        if "seed probability" in bugs:
            return hot * p
        if "seed all" in bugs:
            return y
        if "seed softmax gradient" in bugs:
            return p[target] * (hot - p)
        if "seed log" in bugs:
            return hot * np.log(p)
        if "seed loss" in bugs:
            return p - hot
        if "seed all probabilities" in bugs:
            return p
        if "seed negative" in bugs:
            return -hot * y
        return hot * y

    def back(self, v, target):
        bugs = self.bugs
        R = {"fc2": self.seed(v["fc2"], target)}
        for name in reversed(GRAPH):
            parts = self.layer(name, v, R[name])
            for source, part in zip(GRAPH[name], parts):
                if source in R and "readers overwritten" in bugs:
                    R[source] = part
                elif source in R and "readers first" in bugs:
                    continue
                elif source in R:
                    R[source] = R[source] + part
                else:
                    R[source] = part
            if "positive only" in bugs:
                for source in GRAPH[name]:
                    R[source] = np.maximum(R[source], 0)
        return R

    def layer(self, name, v, R):
        bugs, inputs = self.bugs, GRAPH[name]
        x, y = v[inputs[0]], v[name]
        if name.startswith("relu"):
            return [R * (x > 0) if "relu gradient" in bugs else R]
        if name == "flatten":
            return [
                np.moveaxis(R.reshape(2, 2, 5), -1, 0).ravel()
                if {"flatten last", "flatten back"} & bugs
                else R
            ]
        if name == "cat":
            n = len(v[inputs[0]])
            if {"cat order forward", "cat order"} & bugs:
                m = len(v[inputs[1]])
                return [R[m:], R[:m]]
            parts = [R[:n], R[n:]]
            if "cat first only" in bugs:
                parts[1] = 0 * parts[1]
            if "cat last only" in bugs:
                parts[0] = 0 * parts[0]
            return parts
        if name == "sum":
            a, b = v[inputs[0]], v[inputs[1]]
            if "sum first branch forward" in bugs:
                return [R, 0 * R]
            s = R / self.stable(a + b)
            if "sum half" in bugs:
                return [R / 2, R / 2]
            if "sum all to both" in bugs:
                return [R, R]
            if "sum first only" in bugs:
                return [R, 0 * R]
            if "sum swapped" in bugs:
                return [b * s, a * s]
            if "sum absolute" in bugs:
                return [abs(a) / (abs(a) + abs(b)) * R, abs(b) / (abs(a) + abs(b)) * R]
            return [a * s, b * s]
        if name == "pool":
            return [self.unpooled(x, R)]
        if self.fused and name.startswith("bn"):
            return [R]
        return [self.ruled(name, x, y, R)]

    def unpooled(self, x, R):
        image, R, out = x.reshape(SHAPES["relu1"]), R.reshape(SHAPES["pool"]), np.zeros(SHAPES["relu1"])
        for at in np.ndindex(*R.shape):
            window = [(at[0], 2 * at[1] + i, 2 * at[2] + j) for i in (0, 1) for j in (0, 1)]
            most = max(image[w] for w in window)
            hits = [w for w in window if image[w] == most]
            if "pool evenly" in self.bugs:
                hits = window
            total = sum(image[w] for w in window)
            for w in (
                hits
                if {"ties all", "ties equal", "pool evenly"} & self.bugs
                else hits[-1:]
                if "ties last" in self.bugs
                else hits[:1]
            ):
                if not {"pool in proportion", "average pool forward"} & self.bugs:
                    out[w] += R[at] / (len(hits) if {"ties equal", "pool evenly"} & self.bugs else 1)
            if {"pool in proportion", "average pool forward"} & self.bugs and total:
                for w in window:
                    out[w] += (
                        R[at] * image[w] / (total + (4e-6 if "average pool forward" in self.bugs else 0))
                    )
        return out.ravel()

    def stable(self, z, eps=EPS):
        bugs = self.bugs
        if "eps no sign" in bugs:
            return z + eps
        if "eps absolute" in bugs:
            return abs(z) + eps
        if "eps subtracted" in bugs:
            return z - eps * np.where(z >= 0, 1, -1)
        if "eps left out" in bugs:
            return z
        if "eps 1e-6" in bugs:
            eps = 1e-6
        if "eps ten times" in bugs:
            eps = 10 * eps
        return z + eps * np.where(z >= 0, 1, -1)

    def ruled(self, name, x, y, R):
        bugs, (W, b) = self.bugs, self.maps[name]
        rule = self.rules[name]
        if name.startswith("bn"):
            if "bn passed" in bugs:
                return R
            if "bn gradient" in bugs:
                return W @ R
        if "bias dropped" in bugs:
            b = 0 * b
        if "gradient" in bugs and not name.startswith("bn"):
            return W @ R
        if name in CONVS and {"flip back", "swap back", "padding back", "stride back"} & bugs:
            stride, padding = CONVS[name]
            w = self.p[name][0]
            shape = SHAPES[GRAPH[name][0]]
            back = None
            if {"flip back", "swap back"} & bugs:
                back, _ = conv_matrix(
                    w, self.p[name][1], shape, stride, padding, "flip back" in bugs, "swap back" in bugs
                )
            elif "stride back" in bugs and stride == 2:
                back = np.zeros_like(W)
                side = int(np.sqrt(W.shape[1] // w.shape[0]))
                moved, _ = conv_matrix(w, self.p[name][1], shape, 1, padding)
                moved = moved.reshape(len(W), w.shape[0], *[shape[1]] * 2)[:, :, :side, :side]
                back = moved.reshape(W.shape)
            if back is not None:
                return self.apply(rule, x, W, b, R, back)
        if "one layer " + name in bugs:
            return x * (W @ (R / self.stable(x @ W)))
        if name in CONVS or name.startswith("fc"):
            rule = (
                "z-plus"
                if "z-plus everywhere" in bugs
                else "epsilon"
                if "epsilon everywhere" in bugs
                else rule
            )
        return self.apply(rule, x, W, b, R, None)

    def apply(self, rule, x, W, b, R, back):
        bugs = self.bugs
        V = W if back is None else back
        weigh = 1 if "no x" in bugs else x
        if "wrong rule" in bugs and rule == "alpha-beta":
            rule = "epsilon"
        if rule == "epsilon":
            z = x @ W + b
            d = self.stable(z)
            if "no division" in bugs:
                d = 1
            if "bias shared" in bugs:
                n = (W != 0).sum(0)
                return weigh * (V @ (R / d)) + (W != 0) @ (b / n * R / d)
            R_x = weigh * (V @ (R / d))
            return x * R_x if "x twice" in bugs else R_x
        if rule == "flat":
            return _shared((W != 0) * 1.0, (W != 0).sum(0) * 1.0, R)
        c, turned = x[:, None] * W, x[:, None] * V
        if rule in ("z-plus", "alpha-beta"):
            alpha, beta = (1, 0) if rule == "z-plus" else (2, 1)
            if "alpha 1 beta 0" in bugs:
                alpha, beta = 1, 0
            if "alpha beta swapped" in bugs:
                alpha, beta = beta, alpha
            if "weights only" in bugs:
                up, down = x[:, None] * np.maximum(W, 0), x[:, None] * np.minimum(W, 0)
            else:
                up, down = np.maximum(c, 0), np.minimum(c, 0)
            bp, bn = np.maximum(b, 0), np.minimum(b, 0)
            if "bias in both" in bugs:
                bp = bn = b
            plus = _shared(_parts(up, turned, back), up.sum(0) + bp, R)
            minus = _shared(_parts(down, turned, back), down.sum(0) + bn, R) if beta else 0
            if "over z" in bugs:
                z = x @ W + b
                plus, minus = _shared(up, z, R), _shared(down, z, R) if beta else 0
            return alpha * plus + (beta if "beta added" in bugs else -beta) * minus
        if rule == "gamma":
            z, g = x @ W + b, GAMMA
            if "gamma twice" in bugs:
                g = 2 * g
            if "gamma weights" in bugs:
                w = W + g * np.maximum(W, 0)
                bias = b + g * np.maximum(b, 0)
                return x * (w @ _over(R, x @ w + bias))
            pos = c + g * np.maximum(c, 0)
            neg = c + g * np.minimum(c, 0)
            bp, bn = b + g * np.maximum(b, 0), b + g * np.minimum(b, 0)
            if "gamma bias plain" in bugs:
                bp = bn = b
            if "bias dropped" in bugs:
                bp = bn = 0 * b
            up = pos if back is None else turned + g * np.maximum(turned, 0)
            down = neg if back is None else turned + g * np.minimum(turned, 0)
            if "gamma positive" in bugs:
                return _shared(up, pos.sum(0) + bp, R)
            return _shared(up, pos.sum(0) + bp, R * (z >= 0)) + _shared(down, neg.sum(0) + bn, R * (z < 0))
        low, high = (HIGH, LOW) if "box swapped" in bugs else (LOW, HIGH)
        low = 0 if "box no low" in bugs else low
        high = 0 if "box no high" in bugs else high
        box = c - low * np.maximum(W, 0) - high * np.minimum(W, 0)
        if "box sides" in bugs:
            box = c - low * np.minimum(W, 0) - high * np.maximum(W, 0)
        z = box.sum(0) + (b if "box bias" in bugs else 0)
        if back is not None:
            box = turned - low * np.maximum(V, 0) - high * np.minimum(V, 0)
        return _shared(box, z, R)


def _parts(c, turned, back):
    if back is None:
        return c
    return np.maximum(turned, 0) if (c >= 0).all() else np.minimum(turned, 0)


def _over(a, b):
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def _shared(c, z, R):
    return c @ _over(R, z)


def run(p, x, target=1, bugs=(), fused=False, rules=RULES):
    """Relevance and activations of all values, by name."""
    one = Run(p, bugs, fused, rules)
    if "training mode" in bugs:
        return _training(one, x, target)
    values, relevance = [], []
    for sample in x:
        v = one.forward(sample)
        R = one.back(v, target)
        values.append(v)
        relevance.append(R)
    return _stacked(relevance, bugs), _stacked(values, ())


def _training(one, x, target):
    """Batch normalization with the statistics of the batch, layer by layer for all samples."""
    for bn, conv in (("bn1", "conv1"), ("bn2", "conv2")):
        gamma, beta, _, _, eps = one.p[bn]
        y = np.stack([one.forward(s)[conv] for s in x]).reshape(len(x), 4, -1)
        mean, variance = y.mean((0, 2)), y.var((0, 2))
        g = gamma / np.sqrt(variance + eps)
        one.maps[bn] = np.diag(np.repeat(g, y.shape[2])), np.repeat(beta - g * mean, y.shape[2])
    values = [one.forward(s) for s in x]
    return _stacked([one.back(v, target) for v in values], ()), _stacked(values, ())


POSTS = {
    "absolute": abs,
    "positive part": lambda R: np.maximum(R, 0),
    "min-max": lambda R: (R - R.min((1, 2, 3), keepdims=True)) / np.ptp(R, (1, 2, 3), keepdims=True),
    "divided by largest": lambda R: R / abs(R).max((1, 2, 3), keepdims=True),
    "mirrored back": lambda R: R[..., ::-1],
    "heatmap transposed": lambda R: R.swapaxes(2, 3),
    "sign": np.negative,
    "samples reversed": lambda R: R[::-1],
    "three times": lambda R: 3 * R,
    "summed then absolute": lambda R: abs(R.sum(1)),
}


def _stacked(samples, bugs):
    found = {k: np.stack([s[k] for s in samples]).reshape(-1, *SHAPES[k]) for k in samples[0]}
    for name, post in POSTS.items():
        if name in bugs:
            found["input"] = post(found["input"])
    if "names off" in bugs:  # what a hook on the layer's input keeps under the layer's name
        named = {k: found[GRAPH[k][0]] for k in ("bn1", "relu1", "bn2", "sum", "relu2", "relu4", "relu5")}
        found = {**found, **named}
    return found


# ---------------------------------------------------------------- the faults

FAULTS = {
    # forward (F): batch normalization, preprocessing, layout, dropout
    "bn no eps": "without eps",
    "bn variance squared": "var^2",
    "bn eps outside": "sqrt(var) + eps",
    "bn no root": "without the root",
    "bn no mean": "without its mean",
    "bn no beta": "without beta",
    "bn no gamma": "without gamma",
    "bn swapped": "gamma and beta swapped",
    "bn eps 1e-3": "eps 1e-3",
    "training mode": "training mode",
    "no bias forward": "the bias left out",
    "flip forward": "turned by 180",
    "swap forward": "height and width swapped",
    "no relu": "activations left out",
    "leaky": "leaky ReLU",
    "average pool forward": "average instead of max pooling",
    "sum first branch forward": "first branch alone",
    "flatten last": "flattened channels last",
    "dropout": "dropout",
    "times 255": "times 255",
    "divided 255": "divided by 255",
    "2x-1": "2 x - 1",
    "bgr": "BGR",
    "nhwc read": "NHWC",
    "standardized": "standardized",
    "mirrored": "mirrored",
    # the seed (S)
    "seed 1": "a seed of 1",
    "seed probability": "probability as the seed",
    "seed all": "all logits",
    "seed softmax gradient": "gradient of the softmax",
    "seed log": "log-probability",
    "seed loss": "gradient of the loss",
    "seed all probabilities": "all probabilities",
    "seed negative": "wrong sign",
    "other class": "another class",
    # rules (R)
    "eps no sign": "without sign",
    "eps absolute": "|z| + eps",
    "eps subtracted": "stabilizer subtracted",
    "eps left out": "no stabilizer",
    "eps 1e-6": "Epsilon(1e-06)",
    "eps ten times": "Epsilon(2.5)",
    "bias dropped": "the bias dropped",
    "bias shared": "the bias shared equally",
    "no x": "c instead of x c",
    "x twice": "x^2 c",
    "no division": "the division is missing",
    "gradient": "the layer's gradient",
    "weights only": "alpha-beta on weights only",
    "bias in both": "in both denominators",
    "alpha beta swapped": "alpha and beta swapped",
    "alpha 1 beta 0": "ZPlus()|alpha-beta's negative part left out|AlphaBeta(1",
    "beta added": "added instead of subtracted",
    "over z": "layer's output instead of its own sum",
    "gamma weights": "gamma on weights only",
    "gamma bias plain": "gamma's bias as it is",
    "gamma positive": "gamma's positive form",
    "gamma twice": "Gamma(1)",
    "box swapped": "bounds of z^B swapped",
    "box bias": "bias left in the denominator of z^B",
    "box no low": "without its low",
    "box no high": "without its high",
    "box sides": "wrong sides",
    "wrong rule": "in the place of AlphaBeta|instead",
    "z-plus everywhere": "ZPlus() instead",
    "epsilon everywhere": "Epsilon(0.25) instead",
    "one layer fc1": "the bias dropped from the denominator, in fc1|the bias dropped",
    "flip back": "turned the wrong way",
    "swap back": "height and width swapped",
    "stride back": "stride",
    # layers (L)
    "relu gradient": "activation's gradient",
    "bn passed": "batch normalization passed unchanged|treated as 'identity'",
    "bn gradient": "gradient|TorchLRP",
    "pool evenly": "evenly",
    "pool in proportion": "in proportion",
    "ties all": "each of equal maxima",
    "ties equal": "equal maxima share equally",
    "ties last": "the last of equal maxima",
    "flatten back": "flattening undone|NHWC",
    "cat order": "cut apart in another order",
    "cat first only": "concatenation's first branch",
    "cat last only": "concatenation's last branch",
    "sum half": "Flat|equal|WSquare|half|evenly",
    "sum all to both": "each branch of a sum gets all",
    "sum first only": "first branch",
    "sum swapped": "branches of a sum swapped",
    "sum absolute": "|a| : |b|",
    "readers overwritten": "overwritten|first reader",
    "positive only": "negative relevance set to 0",
    # the heatmap (H)
    "names off": "names off",
    "absolute": "absolute value",
    "positive part": "positive part",
    "min-max": "scaled to 0 .. 1",
    "divided by largest": "largest |value|",
    "mirrored back": "turned around",
    "heatmap transposed": "axes",
    "sign": "wrong sign",
    "samples reversed": "another order",
    "three times": "3 times",
    "summed then absolute": "absolute value",
}  # fmt: skip
"""For each fault words that the right cause contains (one of them, divided by bars)."""

SHOWN = {
    "weights only": {"conv1": "alpha-beta"},
    "gamma positive": {"conv1": "gamma", "conv2": "flat", "conv3": "flat"},
    **{
        name: {"conv2": "flat", "conv3": "flat"}
        for name in ("relu gradient", "ties all", "ties equal", "ties last")
    },
}
"""Other rules, with which a fault changes something."""

PAIRS = ("bias dropped", "bn variance squared", "relu gradient", "no x", "pool evenly", "gamma weights")
"""Faults that are planted together with a seed of 1 as well."""

LETTERS = dict.fromkeys(FAULTS, "")
for _letter, _first in zip("FSRLH", ("bn no eps", "seed 1", "eps no sign", "relu gradient", "names off")):
    for _name in list(FAULTS)[list(FAULTS).index(_first) :]:
        LETTERS[_name] = _letter


ONLY_LAYERS = ("names off", "dropout")
"""Faults that the heatmap alone does not show, or not so that they have a name."""


def images(seed=1, count=3):
    """Inputs between the bounds of z^B."""
    return np.random.default_rng(seed).normal(0, 1, (count, *SHAPES["input"])).clip(LOW, HIGH)


def judged(fault, how, fused=False, extra=(), **options):
    """The verdict on a fault: `how` is "layers", "activations" (layers with activations) or "alone"."""
    from numpylrp.validate.compare import judge

    p, x = parameters(), images()
    if fault.startswith("ties"):  # more windows of which all values are 0
        gamma, beta, *statistics = p["bn1"]
        p["bn1"] = gamma, beta - 0.8, *statistics
    names = {**RULES, **SHOWN.get(fault, {})}
    network, rules = library(p, names)
    relevance, values = run(p, x, 1, {fault, *extra}, fused, names)
    if fused:
        relevance = {k: v for k, v in relevance.items() if not k.startswith("bn")}
    candidate = {"input": relevance["input"]} if how == "alone" else relevance
    own = {k: v for k, v in values.items() if k != "input"} if how == "activations" else None
    treatment = "fused" if fused else "linear"
    options |= {"target": 1, "normalization": treatment, "activations": own}
    return judge(network, x, rules, candidate, **options)


def outcome(fault, verdict):
    """What came of it: "right", "misleading", "differs" or "agrees"."""
    row = verdict.first
    if row is None:
        return "agrees"
    words = FAULTS[fault].split("|")
    if any(word in fit for fit in row.fits for word in words):
        return "right"
    return "misleading" if row.fits else "differs"


def planted(fused):
    """The faults that change something under this treatment."""
    gone = ("bn passed", "bn gradient", "training mode") if fused else ()
    return [fault for fault in FAULTS if fault not in gone]


def count(how, fused, faults, extra=()):
    """How many of the faults come out how, by letter; those that are not named are printed."""
    counts, began = {}, time.time()
    for fault in faults:
        verdict = judged(fault, how, fused, extra)
        got = outcome(fault, verdict)
        counts.setdefault(LETTERS[fault], Counter())[got] += 1
        if got != "right":
            print(f"  {how}{', fused' * fused}, {fault}: {got}: {verdict.cause[:200]}")
    total = sum(counts.values(), Counter())
    letters = "; ".join(f"{letter} {dict(c)}" for letter, c in counts.items())
    head = f"{how}{', fused' * fused}{''.join(f', with {e}' for e in extra)}"
    print(
        f"{head}: {dict(total)} of {sum(total.values())} ({letters}), {time.time() - began:.0f} s", flush=True
    )
    return total


def main(args):
    hows = [a for a in args if a in ("layers", "activations", "alone")] or ["layers", "activations", "alone"]
    some = [a for a in args if a not in hows]
    for how in hows:
        for fused in (False, True):
            shown = [f for f in planted(fused) if how != "alone" or f not in ONLY_LAYERS]
            count(how, fused, [f for f in shown if f in some or not some])
    if not some and "alone" in hows:
        count("alone", False, PAIRS, ("seed 1",))


if __name__ == "__main__":
    main(sys.argv[1:])
