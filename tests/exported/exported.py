"""Small models of PyTorch and ONNX, one for each group of operations, as our exporters write them.

    pip install -e ".[torch,onnx]"
    python tests/exported/exported.py tests/exported      # writes NAME.h5 and NAME.npz (inputs, outputs)

Weights are random, batch normalization has statistics that are not 0 and 1. The outputs are those
of PyTorch in float64, and of ONNX' reference evaluator.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def modules() -> dict:
    """PyTorch modules by name, each with the shapes of its inputs."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=(1, 2))
            self.bn1 = nn.BatchNorm2d(4)
            self.conv2 = nn.Conv2d(4, 6, (3, 2), groups=2, dilation=(1, 2), padding="same", bias=False)
            self.bn2 = nn.BatchNorm2d(6, affine=False, eps=1e-3)
            self.conv3 = nn.Conv2d(6, 12, 3, groups=6, padding="valid")
            self.drop = nn.Dropout2d()
            self.fc = nn.Linear(12, 3)

        def forward(self, x):
            x = F.relu(self.bn1(self.conv1(x)), inplace=True)
            x = F.max_pool2d(x, 2, stride=1, padding=1, ceil_mode=True)
            x = F.relu6(self.bn2(self.conv2(x)))
            x = F.avg_pool2d(self.conv3(x), 3, 2, padding=1, count_include_pad=False)
            x = self.drop(F.adaptive_avg_pool2d(x, 1))
            return F.log_softmax(self.fc(x.view(x.size(0), -1)), dim=1)

    class OptionA(nn.Module):
        """A residual block whose shortcut takes every second pixel and pads channels with zeros."""

        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
            self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
            self.fc = nn.Linear(8, 3)

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            y += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0)
            y = F.relu(y)
            return self.fc(F.avg_pool2d(y, y.size()[3]).flatten(1))

    class Gates(nn.Module):
        """Squeeze and excitation, and every activation."""

        def __init__(self):
            super().__init__()
            self.reduce, self.grow = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
            self.prelu, self.hard = nn.PReLU(4), nn.Hardsigmoid()
            self.rest = nn.Sequential(
                nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh()
            )

        def forward(self, x):
            w = self.grow(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
            x = x * torch.sigmoid(w).expand_as(x)
            x = self.hard(w) * self.prelu(x) + F.hardswish(x) - F.softplus(x, beta=2)
            x = F.hardtanh(self.rest(x)) + x.clamp(min=-0.5) + x.clamp(-0.2, 0.4) + F.threshold(x, 0.1, 0.0)
            return torch.softmax(x.sum(dim=(-1, -2)), dim=-1)

    class Norms(nn.Module):
        def __init__(self):
            super().__init__()
            self.group, self.instance = nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)
            self.lrn, self.layer = nn.LocalResponseNorm(3, 0.1, 0.7, 1.5), nn.LayerNorm([5, 4])
            self.last, self.rms = nn.LayerNorm(4, elementwise_affine=False), nn.RMSNorm(4)

        def forward(self, x):
            x = self.lrn(self.group(x) + self.instance(x))
            x = self.rms(self.last(self.layer(x)))
            return F.normalize(x.amax(dim=(2, 3)), dim=1)

    class Shapes(nn.Module):
        def forward(self, x):
            a, b = x.chunk(2, dim=1)
            c, d = x.split([1, 3], dim=1)
            x = torch.cat([a, b, c, d[:, 1:]], dim=1).permute(0, 2, 3, 1).transpose(-1, 1).contiguous()
            x = F.channel_shuffle(x[:, :6], 2)
            x = F.pixel_shuffle(x[:, :4], 2)
            x = torch.stack([x, x * 2], dim=2).flatten(1, 2)
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.pad(x, (-1, 2, 1, 0))[:, :, 1:-1, ::3]
            first, *_ = x.unbind(2)
            x = x + first.unsqueeze(2) * 0.5 + x.select(3, -1).unsqueeze(-1) + x.narrow(2, 1, 1)
            return x.reshape(len(x), -1)[:, :9].unflatten(1, (3, 3)).squeeze().mean(-1)

    class Pools(nn.Module):
        def forward(self, x):
            a = F.adaptive_avg_pool2d(x, (3, 2)).flatten(1)
            b = F.adaptive_avg_pool2d(x, (2, None))[:, :, :, 0].sum(-1)
            c = F.adaptive_max_pool2d(x, (8 // 2, 7)).amax((2, 3))
            d = x.mean(1).mean(1) + x.sum(3).mean((1, 2), keepdim=True).flatten(1)
            return torch.cat([a, b, c, d, F.max_pool2d(x, 2, 2).mean((-2, -1))], 1)

    class Constants(nn.Module):
        """Statistics and positions in buffers, shared modules, and arithmetic with numbers."""

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1))
            self.register_buffer("place", torch.randn(3, 4, 5))
            self.scale = nn.Parameter(torch.randn(3, 1, 1))
            self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)
            self.matrix = nn.Parameter(torch.randn(5, 2))

        def forward(self, x):
            x = (x / 255 - self.mean) / torch.sqrt(self.mean) + self.place
            for _ in range(2):
                x = self.act(self.conv(x)) * self.scale
            x = torch.maximum(1 - x, -x / 2) - torch.minimum(x, torch.add(x, x, alpha=0.3))
            return (x @ self.matrix).flatten(1)

    class Sound(nn.Module):
        """One dimension, batch normalization behind the ReLU."""

        def __init__(self):
            super().__init__()
            self.steps = nn.Sequential(
                nn.Conv1d(2, 4, 5, stride=2, padding=2),
                nn.ReLU(),
                nn.BatchNorm1d(4),
                nn.MaxPool1d(2),
                nn.Conv1d(4, 6, 3, padding=1, groups=2),
                nn.BatchNorm1d(6),
                nn.ReLU6(inplace=True),
                nn.AvgPool1d(2, ceil_mode=True, padding=1),
                nn.AdaptiveAvgPool1d(2),
                nn.Flatten(),
                nn.Linear(12, 5),
                nn.BatchNorm1d(5),
                nn.ReLU(),
                nn.Linear(5, 2),
            )

        def forward(self, x):
            return self.steps(x)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.up1 = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)
            self.bn, self.up2 = nn.BatchNorm2d(6), nn.ConvTranspose2d(6, 2, (2, 4), 2, (0, 1), groups=2)

        def forward(self, x):
            return torch.tanh(self.up2(F.relu(self.bn(self.up1(x)))))

    class Several(nn.Module):
        """Two inputs, two outputs."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, x, y):
            z = F.relu(self.a(x)) + self.b(y)
            return {"z": z, "x": x.mean(1, keepdim=True)}

    return {
        "plain": (Plain, [(3, 9, 8)]),
        "option_a": (OptionA, [(4, 8, 8)]),
        "gates": (Gates, [(4, 5, 3)]),
        "norms": (Norms, [(4, 5, 4)]),
        "shapes": (Shapes, [(4, 4, 4)]),
        "pools": (Pools, [(3, 8, 7)]),
        "constants": (Constants, [(3, 4, 5)]),
        "sound": (Sound, [(2, 21)]),
        "decoder": (Decoder, [(4, 3, 4)]),
        "several": (Several, [(3,), (5,)]),
    }


def made(name: str, seed: int, batch: int = 2):
    """A module in float64 with random parameters and statistics, and inputs for it."""
    import torch

    torch.manual_seed(seed)
    kind, shapes = modules()[name]
    module = kind().double().eval()
    with torch.no_grad():
        for part in module.modules():
            if getattr(part, "running_mean", None) is not None:
                part.running_mean.normal_(0, 0.5)
                part.running_var.uniform_(0.3, 3)
            if "Norm" in type(part).__name__ and getattr(part, "weight", None) is not None:
                part.weight.normal_(0, 1)  # negative ones among them
                if getattr(part, "bias", None) is not None:
                    part.bias.normal_(0, 0.5)
    return module, tuple(torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes)


def outputs(module, inputs) -> list:
    """The module's outputs as arrays."""
    import torch

    with torch.no_grad():
        y = module(*inputs)
    y = list(y.values()) if isinstance(y, dict) else y
    return [t.numpy() for t in (y if isinstance(y, (list, tuple)) else [y])]


def onnx_models() -> dict:
    """ONNX models by name: lists of nodes (operator, inputs, outputs, attributes), constants, input shape."""
    rng = np.random.default_rng(0)

    def w(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def ints(*values):
        return np.array(values, np.int64)

    images = [
        ("Conv", "x w1 b1", "a", {"pads": [0, 1, 1, 0], "strides": [1, 2]}),
        ("BatchNormalization", "a g be m v", "b", {"epsilon": 1e-3}),
        ("Relu", "b", "c", {}),
        ("MaxPool", "c", "d", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("Conv", "d w2", "e", {"auto_pad": "SAME_LOWER", "kernel_shape": [2, 2], "group": 2}),
        ("AveragePool", "e", "f", {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
        ("ConvTranspose", "f w3", "g1", {"strides": [2, 2], "pads": [1, 1, 0, 0], "output_padding": [1, 0]}),
        ("GlobalAveragePool", "g1", "h", {}),
        ("Flatten", "h", "i", {}),
        ("Gemm", "i w4 b4", "j", {"transB": 1, "alpha": 0.5, "beta": 2.0}),
        ("Softmax", "j", "y", {"axis": -1}),
    ]
    activations = [
        ("LeakyRelu", "x", "a", {"alpha": 0.2}),
        ("Elu", "x", "b", {"alpha": 0.5}),
        ("Selu", "x", "c", {}),
        ("HardSigmoid", "x", "d", {}),
        ("HardSwish", "x", "e", {}),
        ("Clip", "x low high", "f", {}),
        ("PRelu", "x slope", "g", {}),
        ("Softplus", "x", "h", {}),
        ("Tanh", "x", "i", {}),
        ("ThresholdedRelu", "x", "j", {"alpha": 0.3}),
        ("Sum", "a b c d e f", "k", {}),
        ("Max", "g h k", "l", {}),
        ("Min", "l zero", "m", {}),
        ("Mean", "i j m", "n", {}),
        ("Sigmoid", "n", "o", {}),
        ("Mul", "o x", "p", {}),
        ("Sub", "p x", "q", {}),
        ("Div", "q half", "r", {}),
        ("Neg", "r", "s", {}),
        ("ReduceMean", "s spatial", "t", {"keepdims": 0}),
        ("LogSoftmax", "t", "y", {"axis": 1}),
    ]
    shapes = [
        ("Shape", "x", "size", {}),
        ("Gather", "size zero_i", "n", {"axis": 0}),
        ("Unsqueeze", "n front", "n1", {}),
        ("Concat", "n1 rest", "target", {"axis": 0}),
        ("Transpose", "x", "a", {"perm": [0, 2, 3, 1]}),
        ("Reshape", "a target", "b", {}),
        ("Slice", "b starts ends axes steps", "c", {}),
        ("Split", "c", "d1 d2", {"axis": 1, "num_outputs": 2}),
        ("Concat", "d2 d1", "d", {"axis": -2}),
        ("Pad", "d pads", "e", {}),
        ("Unsqueeze", "e first", "f", {}),
        ("Resize", "f none scales", "g", {"mode": "nearest"}),
        ("Cast", "g", "g32", {"to": 1}),  # the reference evaluator resizes to float64
        ("Squeeze", "g32 first", "h", {}),
        ("Gather", "h one_i", "i", {"axis": 1}),
        ("MatMul", "i w", "j", {}),
        ("Add", "j b0", "y", {}),
    ]
    norms = [
        ("InstanceNormalization", "x g be", "a", {}),
        ("LayerNormalization", "a gl bl", "b", {"axis": -1}),
        ("GroupNormalization", "b g be", "c", {"num_groups": 2, "epsilon": 1e-4}),
        ("DepthToSpace", "c", "d", {"blocksize": 2, "mode": "CRD"}),
        ("ReduceMax", "d last", "e", {"keepdims": 0}),
        ("Flatten", "e", "f", {}),
        ("LpNormalization", "f", "y", {"axis": 1}),
    ]
    return {
        "onnx_images": (
            images,
            {
                **dict(w1=w(4, 3, 3, 2), b1=w(4), g=w(4), be=w(4), m=w(4), v=abs(w(4)) + 0.3),
                **dict(w2=w(6, 2, 2, 2), w3=w(6, 5, 3, 3), w4=w(3, 5), b4=w(3)),
            },
            (3, 7, 8),
        ),
        "onnx_activations": (
            activations,
            {
                **dict(low=np.float32(-0.5), high=np.float32(0.8), slope=w(4, 1, 1), zero=np.float32(0.1)),
                **dict(half=np.float32(0.5), spatial=ints(2, 3)),
            },
            (4, 3, 2),
        ),
        "onnx_shapes": (
            shapes,
            {
                **dict(zero_i=np.int64(0), front=ints(0), first=ints(1), rest=ints(6, -1), one_i=np.int64(3)),
                **dict(starts=ints(1, 0), ends=ints(5, 2**60), axes=ints(1, 2), steps=ints(1, 2)),
                **dict(
                    pads=ints(0, 1, 0, 0, 0, 2),
                    none=w(0),
                    scales=np.float32([1, 1, 2, 3]),
                    w=w(18, 3),
                    b0=w(3),
                ),
            },
            (2, 3, 8),
        ),
        "onnx_norms": (norms, dict(g=w(4), be=w(4), gl=w(3), bl=w(3), last=ints(-1)), (4, 2, 3)),
    }


def onnx_model(name: str, seed: int = 1, batch: int = 2):
    """An ONNX model, an input for it, and what the reference evaluator makes of it."""
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    nodes, constants, shape = onnx_models()[name]
    made = [
        helper.make_node(op, [("" if i == "none" else i) for i in ins.split()], outs.split(), **attributes)
        for op, ins, outs, attributes in nodes
    ]
    graph = helper.make_graph(
        made,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), k) for k, a in constants.items() if k != "none"],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    x = np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    return model, x, y


def main(folder: Path) -> None:
    """Write all of them."""
    from numpylrp.export import onnx, torch

    for name in modules():
        module, inputs = made(name, seed=1)
        torch.save(module, inputs, folder / f"{name}.h5")
        arrays = {f"x{n}": x.numpy() for n, x in enumerate(inputs)}
        arrays.update({f"y{n}": y for n, y in enumerate(outputs(module, inputs))})
        np.savez_compressed(folder / f"{name}.npz", **arrays)
    for name in onnx_models():
        model, x, y = onnx_model(name)
        onnx.save(model, folder / f"{name}.h5")
        np.savez_compressed(folder / f"{name}.npz", x0=x, y0=y)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
