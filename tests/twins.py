"""Slow twins: every rule straight from its definition, on an explicit matrix.

Nothing here uses the library's rules or knows convolutions: a layer is a matrix W (inputs, outputs)
and a bias b (outputs,), a sample a vector x, and loops are written as the sums in the papers.
"""

import numpy as np


def _over(numerator, denominator):
    """numerator / denominator where the denominator isn't 0, else 0."""
    return numerator / denominator if denominator != 0 else 0.0


def _share(R, contributions, denominators):
    """R_i = sum_j  contributions_ij / denominators_j  R_j."""
    out = np.zeros(contributions.shape[0])
    for j, R_j in enumerate(R):
        for i in range(len(out)):
            out[i] += _over(contributions[i, j], denominators[j]) * R_j
    return out


def contributions(x, W):
    return x[:, None] * W


def epsilon(x, W, b, R, eps=0.0):
    z = contributions(x, W).sum(0) + b
    return _share(R, contributions(x, W), z + eps * np.where(z >= 0, 1, -1))


def gamma(x, W, b, R, g):
    c = contributions(x, W)
    z = c.sum(0) + b
    up = _share(R * (z >= 0), c + g * c * (c > 0), (c + g * c * (c > 0)).sum(0) + b + g * np.maximum(b, 0))
    down = _share(R * (z < 0), c + g * c * (c < 0), (c + g * c * (c < 0)).sum(0) + b + g * np.minimum(b, 0))
    return up + down


def alpha_beta(x, W, b, R, alpha, beta):
    c = contributions(x, W)
    plus, minus = c * (c > 0), c * (c < 0)
    up = _share(R, plus, plus.sum(0) + np.maximum(b, 0))
    down = _share(R, minus, minus.sum(0) + np.minimum(b, 0))
    return alpha * up - beta * down


def z_plus(x, W, b, R):
    return alpha_beta(x, W, b, R, 1.0, 0.0)


def w_square(x, W, b, R):
    return _share(R, W**2, (W**2).sum(0))


def flat(x, connected, b, R):
    """`connected` says which inputs an output reads at all."""
    return _share(R, connected * 1.0, connected.sum(0))


def z_box(x, W, b, R, low, high):
    c = contributions(x, W) - contributions(low, np.maximum(W, 0)) - contributions(high, np.minimum(W, 0))
    return _share(R, c, c.sum(0))


def absolute(x, W, b, R):
    c = np.abs(contributions(x, W))
    return _share(R, c, c.sum(0))


def rap(x, W, R, inhibiting=False):
    """One sample through one layer; W is (inputs, outputs)."""
    C = np.zeros(len(x))
    for k, r in enumerate(R):
        P = sum(max(x[j] * W[j, k], 0) for j in range(len(x)))
        N = sum(max(-x[j] * W[j, k], 0) for j in range(len(x)))
        for j in range(len(x)):
            z = x[j] * W[j, k]
            if r < 0 and inhibiting:
                C[j] += max(-z, 0) / N * r if N else 0
            else:
                C[j] += max(z, 0) / P * r if P else 0
            C[j] += max(-z, 0) / (P + N) * r if P + N else 0
    on = [j for j in range(len(x)) if C[j] != 0]
    out = np.zeros(len(x))
    for j in on:
        out[j] = C[j] - (C.sum() - R.sum()) / len(on)
    return out
