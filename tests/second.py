"""A third implementation of LRP, in PyTorch, on networks of other kinds than `faulty`, with other bugs.

Sums are PyTorch's, in float32 or float64, and channels can be summed in another order. It reads the library's
layers as data and shares no code with it; every bug is one condition.

    PYTHONPATH=. python tests/second.py        the share of planted faults that is named
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from numpylrp import Network
from numpylrp import layers as L
from numpylrp.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

EPS, GAMMA, LOW, HIGH = 0.1, 0.5, -3.0, 3.0

# ---------------------------------------------------------------- networks


def _weights(r):
    def conv(o, i, *kernel, bias=True, **options):
        w = r.standard_normal((o, i, *kernel)) / np.sqrt(i * np.prod(kernel))
        return L.Conv2D(w, 0.3 * r.standard_normal(o) if bias else None, **options)

    def dense(o, i, bias=True):
        w = r.standard_normal((o, i)) / np.sqrt(i)
        return L.Dense(w, 0.3 * r.standard_normal(o) if bias else None)

    def norm(n, eps=0.02):
        return L.BatchNorm(
            r.uniform(0.5, 1.5, n) * r.choice([-1, 1], n, p=[0.2, 0.8]),
            r.normal(0, 0.5, n),
            r.normal(0, 0.3, n),
            r.uniform(0.2, 2, n),
            eps,
        )

    return conv, dense, norm


def residual(seed=0):
    """Two residual blocks, the second with a projection; strides, an odd size, global average pooling."""
    conv, dense, norm = _weights(np.random.default_rng(seed))
    layers = [
        ("stem", conv(4, 3, 3, 3, bias=False, padding=1)), ("bn0", norm(4)), ("relu0", L.ReLU()),
        ("c1", conv(4, 4, 3, 3, bias=False, padding=1)), ("bn1", norm(4)),
        ("sum1", L.Add(), ("bn1", "relu0")), ("relu1", L.ReLU()),
        ("c2", conv(6, 4, 3, 3, bias=False, padding=1, stride=2)), ("bn2", norm(6)), ("relu2", L.ReLU()),
        ("c3", conv(6, 6, 3, 3, padding=1)), ("bn3", norm(6)),
        ("skip", conv(6, 4, 1, 1, stride=2), "relu1"), ("bn4", norm(6)),
        ("sum2", L.Add(), ("bn3", "bn4")), ("relu3", L.ReLU()),
        ("gap", L.GlobalAveragePool()), ("fc", dense(5, 6)),
    ]  # fmt: skip
    return Network(layers, (3, 7, 7))


def dense_block(seed=0):
    """Concatenations of unequal branches, average pooling, batch normalization before its ReLU."""
    conv, dense, norm = _weights(np.random.default_rng(seed))
    layers = [
        ("stem", conv(4, 3, 3, 3, padding=1)),
        ("bn1", norm(4)), ("relu1", L.ReLU()), ("c1", conv(3, 4, 3, 3, padding=1)),
        ("cat1", L.Concatenate(), ("stem", "c1")),
        ("bn2", norm(7)), ("relu2", L.ReLU()), ("c2", conv(4, 7, 1, 1)),
        ("avg", L.AveragePool2D(2)), ("c3", conv(4, 4, 3, 3, padding=2, dilation=2)),
        ("relu3", L.LeakyReLU(0.1)),
        ("cat2", L.Concatenate(), ("avg", "relu3")),
        ("flatten", L.Flatten()), ("fc1", dense(6, 72)), ("relu4", L.ReLU()), ("fc2", dense(4, 6)),
    ]  # fmt: skip
    return Network(layers, (3, 6, 6))


def mobile(seed=0):
    """Depthwise and grouped convolutions with batch normalization, ReLU6, overlapping max pooling."""
    conv, dense, norm = _weights(np.random.default_rng(seed))
    layers = [
        ("stem", conv(4, 3, 3, 3, bias=False, stride=2, padding="same")), ("bn0", norm(4)),
        ("relu0", L.ReLU(6.0)),
        ("dw", conv(8, 1, 3, 3, groups=4, padding=1)), ("bn1", norm(8)), ("relu1", L.ReLU(6.0)),
        ("pw", conv(6, 8, 1, 1, bias=False)), ("bn2", norm(6)),
        ("grouped", conv(6, 2, 3, 3, groups=3, padding=1)), ("relu2", L.ReLU()),
        ("pool", L.MaxPool2D(3, 2, 1)), ("flatten", L.Flatten()), ("fc", dense(4, 24)),
    ]  # fmt: skip
    return Network(layers, (3, 8, 8))


def perceptron(seed=0):
    """Dense layers with batch normalization between."""
    _, dense, norm = _weights(np.random.default_rng(seed))
    layers = [
        ("fc1", dense(12, 10)), ("bn1", norm(12)), ("relu1", L.ReLU()),
        ("fc2", dense(12, 12)), ("relu2", L.ReLU()),
        ("sum", L.Add(), ("relu2", "relu1")), ("fc3", dense(8, 12)), ("relu3", L.ReLU()),
        ("fc4", dense(4, 8)),
    ]  # fmt: skip
    return Network(layers, (10,))


NETWORKS = {"residual": residual, "dense_block": dense_block, "mobile": mobile, "perceptron": perceptron}


def rules_of(network, what="mixed"):
    """The rules of a network: of one kind, or z^B first, then gamma, alpha-beta, z+ and epsilon in turn."""
    weighted = [n for n in network.nodes if n.layer.family in ("conv", "dense")]
    of = {
        "epsilon": Epsilon(EPS), "gamma": Gamma(GAMMA), "z-plus": ZPlus(), "alpha-beta": AlphaBeta(2.0, 1.0),
        "flat": Flat(), "w-square": WSquare(), "lrp-0": Epsilon(0.0),
    }  # fmt: skip
    turn = ["gamma", "alpha-beta", "z-plus"]
    rules = {}
    for k, node in enumerate(weighted):
        mixed = "epsilon" if node.layer.family == "dense" else turn[k % 3]
        rules[node.name] = of[mixed if what == "mixed" else what]
    if what == "mixed" and weighted[0].layer.family == "conv":
        rules[weighted[0].name] = ZBox(LOW, HIGH)
    small = Epsilon(0.0 if what == "lrp-0" else EPS)
    return rules | {n.name: small for n in network.nodes if n.layer.takes_rule and n.name not in rules}


# ---------------------------------------------------------------- one run


class Run:
    """Forward and back for a batch."""

    def __init__(self, network, rules, bugs=(), dtype=torch.float64, order=False, fused=False):
        self.network, self.rules, self.bugs, self.dtype = network, rules, set(bugs), dtype
        self.order = order
        self.parameters = {}
        for node in network.nodes:
            layer = node.layer
            if layer.family in ("conv", "dense"):
                b = layer.bias
                self.parameters[node.name] = self.t(layer.weight), None if b is None else self.t(b)
        self.gone = set()
        if fused:
            self.fold()

    def t(self, a):
        return torch.tensor(np.array(a), dtype=self.dtype)

    def fold(self):
        """Batch normalization moved into the convolution or dense layer before it."""
        for node in self.network.nodes:
            source = node.inputs[0]
            if (
                isinstance(node.layer, L.BatchNorm)
                and source in self.parameters
                and len(self.network.readers(source)) == 1
            ):
                w, b = self.parameters[source]
                g, s = self.scale(node)
                b = torch.zeros_like(s) if b is None else b
                moved = b if "fold forgets the bias's scale" in self.bugs else g * b
                s = 0 * s if "fold forgets the shift" in self.bugs else s
                self.parameters[source] = w * g.reshape(-1, *(1,) * (w.ndim - 1)), moved + s
                self.gone.add(node.name)

    def scale(self, node):
        bn, bugs = node.layer, self.bugs
        gamma, beta, mean, var = (self.t(a) for a in (bn.gamma, bn.beta, bn.mean, bn.variance))
        d = torch.sqrt(var + bn.eps)
        if "variance unbiased" in bugs:
            d = torch.sqrt(var * 9 / 8 + bn.eps)
        if "eps 1e-3" in bugs:
            d = torch.sqrt(var + 1e-3)
        if "gamma absolute" in bugs:
            gamma = gamma.abs()
        if "mean added" in bugs:
            mean = -mean
        if "shift without gamma" in bugs:
            return gamma / d, beta - mean / d
        if "shift without root" in bugs:
            return gamma / d, beta - gamma * mean
        return gamma / d, beta - gamma / d * mean

    # ------------------------------------------------------------ maps

    def linear(self, node, x, w, b):
        """The layer's map with other weights; for pools and sums w is 1."""
        layer, shape = node.layer, x.shape
        if isinstance(layer, L.Dense):
            return F.linear(x, w, b)
        if layer.family == "conv":
            pads = layer.windows.pads(shape[2:])
            if "padding other side" in self.bugs:
                pads = [p[::-1] for p in pads]
            x = F.pad(x, [n for pair in reversed(pads) for n in pair])
            if self.order and layer.groups == 1:
                at = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(0))
                x, w = x[:, at], w[:, at]
            return F.conv2d(x, w, b, layer.stride, 0, layer.dilation, layer.groups)
        if isinstance(layer, L.BatchNorm):
            view = (-1, *(1,) * (x.ndim - 2))
            return x * w.reshape(view) + (0 if b is None else b.reshape(view))
        if isinstance(layer, L.AveragePool2D):
            return F.avg_pool2d(x, layer.kernel, layer.stride) * w
        if isinstance(layer, L.GlobalAveragePool):
            return x.mean((2, 3)) * w
        raise TypeError(node)

    def own(self, node):
        if node.name in self.parameters:
            w, b = self.parameters[node.name]
            if {"no bias in " + node.name, "no bias forward"} & self.bugs:
                b = None
            return w, b
        if isinstance(node.layer, L.BatchNorm):
            return self.scale(node)
        return torch.ones((), dtype=self.dtype), None

    def back(self, node, x, w, s):
        """The transposed map."""
        at = torch.zeros_like(x).requires_grad_()
        (c,) = torch.autograd.grad(self.linear(node, at, w, None), at, s)
        return c

    # ------------------------------------------------------------ forward

    def forward(self, x):
        bugs, v = self.bugs, {"input": x}
        for name, f in (
            ("rgb mean subtracted", lambda a: a - self.t([0.485, 0.456, 0.406]).reshape(-1, 1, 1)),
            ("clamped", lambda a: a.clamp(0, 1)),
            ("upside down", lambda a: a.flip(2)),
            ("min-max", lambda a: (a - a.min()) / (a.max() - a.min())),
        ):  # fmt: skip
            if name in bugs:
                v["input"] = f(v["input"])
        for node in self.network.nodes:
            layer, given = node.layer, [v[n] for n in node.inputs]
            x = given[0]
            if node.name in self.gone:
                y = x
            elif layer.family in ("conv", "dense", "norm"):
                y = self.linear(node, x, *self.own(node))
                if isinstance(layer, L.BatchNorm) and "bn skipped in " + node.name in bugs:
                    y = x
            elif isinstance(layer, L.ReLU):
                top = None if "relu6 uncapped" in bugs else layer.max_value
                y = x.clamp(0, top)
                if "gelu" in bugs:
                    y = F.gelu(x)
            elif isinstance(layer, L.LeakyReLU):
                y = F.relu(x) if "leaky as relu" in bugs else F.leaky_relu(x, layer.negative_slope)
            elif isinstance(layer, L.MaxPool2D):
                y = F.max_pool2d(x, layer.kernel, layer.stride, tuple(a for a, _ in layer.padding))
            elif layer.family == "pool":
                y = self.linear(node, x, torch.ones((), dtype=x.dtype), None)
            elif isinstance(layer, L.Add):
                y = given[0] + given[1]
            elif isinstance(layer, L.Concatenate):
                y = torch.cat(given[::-1] if "cat swapped" in bugs else given, 1)
            elif isinstance(layer, L.Flatten):
                y = x.flatten(1)
                if "flatten last" in bugs:
                    y = x.movedim(1, -1).flatten(1)
            else:
                raise TypeError(node)
            v[node.name] = y
        return v

    # ------------------------------------------------------------ back

    def seed(self, y, target):
        hot, bugs = F.one_hot(target, y.shape[1]).to(y), self.bugs
        p = y.softmax(1)
        if "seed margin" in bugs:
            rest = torch.where(hot > 0, torch.tensor(-torch.inf, dtype=y.dtype), y)
            return hot * y - F.one_hot(rest.argmax(1), y.shape[1]).to(y) * y
        if "seed logit times probability" in bugs:
            return hot * y * p
        if "seed p(1-p)" in bugs:
            return hot * p * (1 - p)
        if "seed minus mean" in bugs:
            return hot * (y - y.mean(1, keepdim=True))
        if "seed one, others minus" in bugs:
            return hot - (1 - hot) / (y.shape[1] - 1)
        if "seed class 0" in bugs:
            return F.one_hot(0 * target, y.shape[1]).to(y) * y
        if "seed top class" in bugs:
            return F.one_hot(y.argmax(1), y.shape[1]).to(y)
        if "seed 1" in bugs:
            return hot
        return hot * y

    def relevance(self, v, target):
        top, bugs = self.network.nodes[-1].name, self.bugs
        R = {top: self.seed(v[top], target)}
        for node in reversed(self.network.nodes):
            if node.name not in R:
                continue
            parts = self.sent(node, v, R[node.name])
            if "normalized in every layer" in bugs:
                total = R[top].flatten(1).sum(1)
                parts = [p * (total / p.flatten(1).sum(1)).reshape(-1, *(1,) * (p.ndim - 1)) for p in parts]
            for name, part in zip(node.inputs, parts):
                known = name in R
                if known and "skip relevance lost" in bugs:
                    continue
                if known and "readers averaged" in bugs:
                    part = (R[name] + part) / 2
                elif known:
                    part = R[name] + part
                R[name] = part
        return R

    def sent(self, node, v, R):
        layer, bugs, given, y = node.layer, self.bugs, [v[n] for n in node.inputs], v[node.name]
        x = given[0]
        if node.name in self.gone or f"bn skipped in {node.name}" in bugs:
            return [R]
        if isinstance(layer, L.BatchNorm) and "bn identity" in bugs:
            return [R]
        if isinstance(layer, L.BatchNorm) and "bn rescaled" in bugs:
            g, _ = self.scale(node)
            return [R * g.reshape(-1, *(1,) * (R.ndim - 2))]
        if layer.family == "activation":
            if "guided" in bugs:
                return [R.clamp(min=0) * (x > 0)]
            if "deconvnet" in bugs:
                return [R.clamp(min=0)]
            if "slope" in bugs:
                return [R * self.t(np.where(x > 0, 1.0, getattr(layer, "negative_slope", 0.0)))]
            return [R]
        if isinstance(layer, L.MaxPool2D):
            return [self.unpooled(node, x, R)]
        if isinstance(layer, L.Add):
            a, b = given
            if "sum by squares" in bugs:
                d = a**2 + b**2
                return [a**2 / d * R, b**2 / d * R]
            if "sum by positive parts" in bugs:
                p, q = a.clamp(min=0), b.clamp(min=0)
                d = p + q
                s = torch.where(d == 0, torch.zeros_like(d), R / d)
                return [p * s, q * s]
            if "sum half" in bugs:
                return [R / 2, R / 2]
            if "sum no eps" in bugs:
                return [a / y * R, b / y * R]
            s = self.divided(R, y, self.rules[node.name].epsilon)
            return [a * s, b * s]
        if isinstance(layer, L.Concatenate):
            n = given[0].shape[1]
            if "cat swapped" in bugs or "cat cut in reverse" in bugs:
                m = given[1].shape[1]
                return [R[:, m:], R[:, :m]]
            if "cat halved" in bugs:
                return [R[:, :n] / 2, R[:, n:] / 2]
            return [R[:, :n], R[:, n:]]
        if isinstance(layer, L.Flatten):
            if {"flatten last", "unflatten last"} & bugs:
                return [R.reshape(len(x), *x.shape[2:], x.shape[1]).movedim(-1, 1)]
            return [R.reshape(x.shape)]
        return [self.ruled(node, x, y, R)]

    def unpooled(self, node, x, R):
        layer, bugs = node.layer, self.bugs
        pads = tuple(a for a, _ in layer.padding)
        at = x.detach().clone().requires_grad_()
        if "pool smallest" in bugs:
            (c,) = torch.autograd.grad(F.max_pool2d(-at, layer.kernel, layer.stride, pads), at, R)
            return -c
        if "pool as average" in bugs:
            (c,) = torch.autograd.grad(F.avg_pool2d(at, layer.kernel, layer.stride, pads), at, R)
            return c
        if "pool overlap kept once" in bugs:
            _, index = F.max_pool2d(x, layer.kernel, layer.stride, pads, return_indices=True)
            flat = torch.zeros_like(x).flatten(2)
            return flat.scatter(2, index.flatten(2), R.flatten(2)).reshape(x.shape)
        (c,) = torch.autograd.grad(F.max_pool2d(at, layer.kernel, layer.stride, pads), at, R)
        return c

    def stable(self, z, eps):
        bugs = self.bugs
        sign = torch.where(z >= 0, 1.0, -1.0).to(z)
        if "eps by batch" in bugs:
            eps = eps * z.abs().max()
        if "eps by deviation" in bugs:
            eps = eps * z.std()
        if "eps mean" in bugs:
            eps = eps * z.abs().mean()
        if "eps floor" in bugs:
            return torch.where(z.abs() < eps, eps * sign, z)
        if "eps squared" in bugs:
            return z + eps**2 * sign
        return z + eps * sign

    def divided(self, R, z, eps):
        d = self.stable(z, eps)
        return torch.where(d == 0, torch.zeros_like(d), R / torch.where(d == 0, torch.ones_like(d), d))

    def ruled(self, node, x, y, R):
        w, b = self.own(node)
        rule, bugs = self.rules[node.name], self.bugs
        if node.layer.family == "pool" and "average passes gradient" in bugs:
            return self.back(node, x, w, R)
        if node.layer.family == "pool" and "average evenly" in bugs:
            return self.share(node, R, [(torch.ones_like(x), torch.ones_like(w))], None, 0.0)
        if f"wrong rule in {node.name}" in bugs:
            rule = ZPlus() if not isinstance(rule, ZPlus) else Epsilon(EPS)
        if f"bias dropped in {node.name}" in bugs or "bias dropped" in bugs:
            b = None
        if f"eps tenfold in {node.name}" in bugs:
            rule = Epsilon(10 * EPS)
        if "relu inside" in bugs:
            x = x.clamp(min=0)
        bias = b
        p, n = (
            (lambda a: None if a is None else a.clamp(min=0)),
            (lambda a: None if a is None else a.clamp(max=0)),
        )
        if isinstance(rule, Epsilon):
            if "w plus" in bugs and node.layer.family != "pool":
                w = p(w)
            return self.share(node, R, [(x, w)], b, rule.epsilon)
        if isinstance(rule, AlphaBeta):
            halves = (([(p(x), p(w)), (n(x), n(w))], p(b)), ([(p(x), n(w)), (n(x), p(w))], n(b)))
            if "positive inputs only" in bugs:
                halves = (([(p(x), p(w))], p(b)), ([(p(x), n(w))], n(b)))
            if "signs as one" in bugs:
                halves = (([(x, p(w))], p(b)), ([(x, n(w))], n(b)))
            if not rule.bias or "alpha-beta without bias" in bugs:
                halves = tuple((parts, None) for parts, _ in halves)
            alpha, beta = rule.alpha, rule.beta
            if "alpha is 1" in bugs:
                alpha = 1.0
            if "beta is 0" in bugs:
                beta = 0.0
            plus = self.share(node, alpha * R, *halves[0], rule.epsilon)
            return plus - (self.share(node, beta * R, *halves[1], rule.epsilon) if beta else 0)
        if isinstance(rule, Gamma):
            g = rule.gamma
            if "gamma negative weights" in bugs:
                return self.share(
                    node, R, [(x, w + g * n(w))], b if b is None else b + g * n(b), rule.epsilon
                )
            if "gamma only positive" in bugs:
                return self.share(node, R, [(x, g * p(w))], b if b is None else g * p(b), rule.epsilon)
            if "gamma of |w|" in bugs:
                return self.share(
                    node, R, [(x, w + g * w.abs())], b if b is None else b + g * b.abs(), rule.epsilon
                )
            if "gamma without bias" in bugs:
                bias = None
            up = [(x, w), (g * p(x), p(w)), (g * n(x), n(w))]
            down = [(x, w), (g * p(x), n(w)), (g * n(x), p(w))]
            bp = None if bias is None else bias + g * p(bias)
            bn = None if bias is None else bias + g * n(bias)
            if "gamma never negative" in bugs:
                down, bn = up, bp
            plus = self.share(node, R * (y >= 0), up, bp, rule.epsilon)
            return plus + self.share(node, R * (y < 0), down, bn, rule.epsilon)
        if type(rule) is WSquare:
            return self.share(node, R, [(torch.ones_like(x), w**2)], None, rule.epsilon)
        if isinstance(rule, Flat):
            return self.share(node, R, [(torch.ones_like(x), torch.ones_like(w))], None, rule.epsilon)
        low, high = torch.full_like(x, rule.low), torch.full_like(x, rule.high)
        if "box of the batch" in bugs:
            low, high = torch.full_like(x, x.min()), torch.full_like(x, x.max())
        if "box 0 to 1" in bugs:
            low, high = torch.zeros_like(x), torch.ones_like(x)
        if "box as epsilon" in bugs:
            return self.share(node, R, [(x, w)], b, EPS)
        if "box as w-square" in bugs:
            return self.share(node, R, [(torch.ones_like(x), w**2)], None, 0.0)
        return self.share(node, R, [(x, w), (-low, p(w)), (-high, n(w))], None, rule.epsilon)

    def share(self, node, R, parts, b, eps):
        z = sum(self.linear(node, x, w, None) for x, w in parts)
        if b is not None:
            z = z + b.reshape(-1, *(1,) * (z.ndim - 2))
        s = self.divided(R, z, eps)
        if "denominator clamped" in self.bugs:
            s = R / z.clamp(min=1e-6)
        if node.layer.family == "conv":
            return sum(x * self.turned(node, x, w, s) for x, w in parts)
        return sum(x * self.back(node, x, w, s) for x, w in parts)

    def turned(self, node, x, w, s):
        bugs, layer = self.bugs, node.layer
        if "groups swapped" in bugs and layer.groups > 1:
            blocks = w.reshape(layer.groups, -1, *w.shape[1:])
            w = blocks.flip(0).reshape(w.shape)
        c = self.back(node, x, w, s)
        if ("one pixel off" in bugs and w.shape[2] > 1) or (
            "odd stride shifted" in bugs and layer.stride != (1, 1)
        ):
            c = F.pad(c, (1, 0, 1, 0))[..., :-1, :-1]
        return c


def run(network, rules, x, target, bugs=(), dtype=torch.float64, order=False, fused=False):
    """Relevance and activations by name, as arrays of the dtype."""
    one = Run(network, rules, bugs, dtype, order, fused)
    v = one.forward(one.t(x))
    t = torch.full((len(x),), target)
    if "sample 0 activations" in one.bugs:
        v = {name: a[:1].expand_as(a) if name != network.nodes[-1].name else a for name, a in v.items()}
    R = {name: r.detach().numpy() for name, r in one.relevance(v, t).items()}
    if "batch mean" in one.bugs:
        R["input"] = R["input"].mean(0, keepdims=True).repeat(len(x), 0)
    if "rounded to half" in one.bugs:
        R = {k: r.astype(np.float16).astype(r.dtype) for k, r in R.items()}
    return R, {name: a.detach().numpy() for name, a in v.items() if name != "input"}


# ---------------------------------------------------------------- the faults

SUM = "a sum shared evenly|WSquare|Flat|gradient"
FAULTS = {
    "residual": {
        "eps 1e-3": "eps 1e-3", "gamma absolute": "gamma", "mean added": "mean added",
        "shift without gamma": "shift without gamma", "shift without root": "without the root",
        "bn identity": "passed unchanged", "bn rescaled": "gradient", "sum by squares": "squares",
        "sum by positive parts": "ZPlus", "sum half": SUM, "sum no eps": "epsilon 0|zeros only",
        "skip relevance lost": "first reader", "readers averaged": "mean of what several",
        "normalized in every layer": "rescaled in every layer", "guided": "cut off|guided",
        "deconvnet": "cut off", "eps by batch": "largest", "eps by deviation": "deviation",
        "eps mean": "epsilon times the mean", "eps floor": "at least eps", "eps squared": "Epsilon(0.01)",
        "gamma negative weights": "gamma w-", "gamma only positive": "ZPlus", "gamma of |w|": "all weights",
        "gamma without bias": "gamma without its bias", "gamma never negative": "positive form",
        "box of the batch": "value of the batch", "box 0 to 1": "ZBoxOpen(0, 1)",
        "box as epsilon": "Epsilon(0.1) instead", "box as w-square": "WSquare",
        "odd stride shifted": "shifted by a pixel", "one pixel off": "shifted by a pixel",
        "wrong rule in c2": "Epsilon(0.1) instead, in c2 alone", "bias dropped in skip": "bias dropped",
        "rgb mean subtracted": "mean of ImageNet", "clamped": "cut off at 0 and 1",
        "upside down": "upside down", "min-max": "smallest and largest", "seed margin": "largest other",
        "seed logit times probability": "times the probability", "seed p(1-p)": "p (1 - p)",
        "seed minus mean": "mean of all logits", "seed one, others minus": "-1 / (K - 1)",
        "seed class 0": "class 0", "seed top class": "class 3", "bn skipped in bn1": "left out",
        "gelu": "GELU", "sample 0 activations": "first sample", "batch mean": "mean of all samples",
        "no bias in skip": "the bias left out", "average evenly": SUM, "average passes gradient": SUM,
        "w plus": "w+ in the place", "alpha is 1": "both parts by 1", "beta is 0": "left out|ZPlus",
    },
    "dense_block": {
        "cat swapped": "concatenated in another order", "cat cut in reverse": "cut apart",
        "leaky as relu": "ReLU instead", "slope": "activation's gradient", "flatten last": "channels last",
        "unflatten last": "channels last", "no bias in c1": "the bias left out", "relu inside": "below 0",
        "bias dropped in c2": "bias dropped", "alpha-beta without bias": "bias dropped",
        "gamma never negative": "positive form", "normalized in every layer": "rescaled in every layer",
        "one pixel off": "shifted by a pixel",
    },
    "mobile": {
        "groups swapped": "groups in the opposite", "relu6 uncapped": "upper bound",
        "pool smallest": "smallest", "pool as average": "evenly", "pool overlap kept once": "the last of",
        "padding other side": "other side", "odd stride shifted": "shifted by a pixel",
        "bn skipped in bn1": "left out", "wrong rule in pw": "Epsilon(0.1) instead",
        "gamma negative weights": "gamma w-",
    },
    "perceptron": {
        "bias dropped": "bias dropped", "bias dropped in fc2": "bias dropped", "eps by batch": "largest",
        "eps tenfold in fc3": "Epsilon(1)", "sum half": SUM, "seed margin": "largest other",
        "shift without gamma": "shift without gamma", "no bias in fc3": "the bias left out",
        "w plus": "w+ in the place", "denominator clamped": "clamped", "guided": "cut off|guided",
    },
}  # fmt: skip
"""For each network its faults, and words that the right cause contains (one of them, divided by bars)."""


def judged(name, fault, how, **options):
    """The verdict on a fault, given relevance of "layers", of the input "alone", or "activations" too."""
    from numpylrp.validate.compare import judge

    network = NETWORKS[name](0)
    x = np.random.default_rng(5).normal(0, 1, (3, *network.inputs["input"])).clip(LOW, HIGH)
    rules = rules_of(network)
    R, values = run(network, rules, x, 1, (fault,))
    candidate = {"input": R["input"]} if how == "alone" else R
    own = values if how == "activations" else None
    return judge(network, x, rules, candidate, target=1, activations=own, **options)


def outcome(name, fault, verdict):
    """What came of it: "right", "misleading", "differs" or "agrees"."""
    row = verdict.first
    if row is None:
        return "agrees"
    words = FAULTS[name][fault].split("|")
    right = any(word in fit for fit in row.fits for word in words)
    return "right" if right else "misleading" if row.fits else "differs"


def main(hows):
    for how in hows or ("layers", "activations", "alone"):
        counts, began = {}, time.time()
        for name, faults in FAULTS.items():
            for fault in faults:
                verdict = judged(name, fault, how)
                got = outcome(name, fault, verdict)
                counts[got] = counts.get(got, 0) + 1
                if got != "right":
                    print(f"  {how}, {name}, {fault}: {got}: {verdict.cause[:250]}", flush=True)
        print(f"{how}: {counts} of {sum(counts.values())}, {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
