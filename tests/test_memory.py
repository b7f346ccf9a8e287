"""A VGG-16-sized network at 224 x 224, forward and back, in under 2 GB."""

import subprocess
import sys

import pytest

PROGRAM = """
import re, sys
import numpy as np
from numpylrp import Network, explain
from numpylrp.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU

dtype, r = np.dtype(sys.argv[1]), np.random.default_rng(0)
layers, channels = [], 3
for k, out in enumerate([64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]):
    if out:
        w = r.standard_normal((out, channels, 3, 3)).astype(dtype) * dtype.type((2 / 9 / channels) ** 0.5)
        layers += [(f"conv{k}", Conv2D(w, np.zeros(out, dtype), padding=1)), (f"relu{k}", ReLU())]
        channels = out
    else:
        layers.append((f"pool{k}", MaxPool2D(2)))
layers.append(("flatten", Flatten()))
for k, (i, o) in enumerate([(25088, 4096), (4096, 4096), (4096, 1000)]):
    w = np.empty((o, i), dtype)
    for row in w:
        row[:] = r.standard_normal(i) * (2 / i) ** 0.5
    layers += [(f"fc{k}", Dense(w, np.zeros(o, dtype))), (f"relu_fc{k}", ReLU())][: 2 - (k == 2)]
network = Network(layers, (3, 224, 224))
explanation = explain(network, r.standard_normal((1, 3, 224, 224)), composite="epsilon-plus-flat")
total = explanation.relevance.sum()
assert explanation.relevance.dtype == dtype
assert abs(total / explanation.output.max() - 1) < 1e-2, total  # without biases nearly all arrives
# not ru_maxrss, which a child inherits from its parent
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vgg16_runs_in_under_2_gb(dtype):
    done = subprocess.run([sys.executable, "-c", PROGRAM, dtype], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2_000_000, f"{int(done.stdout) / 1e6:.2f} GB"
