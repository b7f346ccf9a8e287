"""Small Keras models, one for each group of layers, in the forms in which Keras 3 writes them.

    pip install keras torch
    python tests/keras/make.py tests/keras      # writes NAME.h5, NAME.keras, NAME.npz (input, output)

Weights are random, batch normalization has statistics that are not 0 and 1.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np


def models() -> dict:
    """The models by name: functions, so that one can be made without the others."""
    import keras
    from keras import layers as K

    def image(name="in", shape=(9, 8, 3)):
        return keras.Input(shape, name=name)

    def sequential():
        return keras.Sequential(
            [
                keras.Input((9, 8, 3)),
                K.Rescaling(1 / 127.5, offset=-1.0),
                K.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
                K.BatchNormalization(),
                K.MaxPooling2D(2, padding="same"),
                K.Dropout(0.3),
                K.Flatten(),
                K.Dense(5, activation="tanh"),
                K.Dense(3, activation="softmax"),
            ]
        )

    def residual():
        x = image()
        a = K.Conv2D(4, 3, padding="same", use_bias=False, name="block_conv")(x)
        a = K.ReLU(max_value=6.0)(K.BatchNormalization(scale=False)(a))
        b = K.SeparableConv2D(4, 3, padding="same", activation="relu", depth_multiplier=2)(x)
        c = K.Add()([a, b])
        d = K.Concatenate()(
            [
                c,
                K.DepthwiseConv2D((2, 3), padding="valid", depth_multiplier=2)(
                    K.ZeroPadding2D(((1, 0), (1, 1)))(x)
                ),
            ]
        )
        e = K.Average()([K.Subtract()([c, a]), K.Maximum()([a, b])])
        d = K.Conv2D(4, 1, activation="swish")(d)
        gate = K.Conv2D(4, 1, activation="sigmoid")(K.GlobalAveragePooling2D(keepdims=True)(d))
        y = K.Add()([K.Multiply()([gate, d]), K.Multiply()([d, e])])
        y = K.GlobalAveragePooling2D(keepdims=True)(y)
        return keras.Model(x, K.Dense(3)(K.Reshape((4,))(y)))

    def activations():
        x = image()
        y = K.LeakyReLU(negative_slope=0.2)(x)
        y = K.PReLU(shared_axes=[1, 2])(K.Conv2D(3, 2)(y))
        y = K.PReLU()(K.ELU(0.7)(y))
        names = "relu6 elu selu gelu sigmoid softplus hard_sigmoid hard_silu leaky_relu silu tanh".split()
        y = K.Add()([K.Activation(name)(K.Conv2D(3, 1)(y)) for name in names])
        return keras.Model(x, K.Softmax(axis=-1)(K.ReLU(negative_slope=0.1, threshold=0.2)(y)))

    def shapes():
        x = image()
        y = K.Cropping2D(((1, 0), (2, 1)))(x)
        y = K.UpSampling2D((2, 1))(y)
        y = K.Conv2DTranspose(4, 3, strides=2, padding="valid")(y)
        y = K.Conv2DTranspose(2, (3, 2), strides=(1, 2), padding="same", activation="relu")(y)
        y = K.AveragePooling2D(3, strides=1, padding="same")(y)
        y = K.Permute((2, 1, 3))(y)
        y = K.Reshape((-1, 11))(y)
        return keras.Model(x, K.Dense(3)(y))

    def norms():
        x = image()
        y = K.Conv2D(4, 3)(x)
        y = K.GroupNormalization(2)(y)
        y = K.LayerNormalization()(y)
        y = K.UnitNormalization()(y)
        y = K.BatchNormalization(axis=1)(y)
        y = K.Conv2D(4, 3, dilation_rate=2, groups=2, padding="same")(y)
        return keras.Model(x, K.GlobalMaxPooling2D()(y))

    def nested():
        inner = keras.Sequential(
            [keras.Input((9, 8, 3)), K.Conv2D(3, 3, padding="same"), K.BatchNormalization()], name="inner"
        )
        i = keras.Input((9, 8, 3))
        shared = K.Conv2D(3, 1, name="shared")
        part = keras.Model(
            i, K.Add()([shared(i), K.Activation("relu")(shared(K.Activation("tanh")(i)))]), name="part"
        )
        x = image()
        y = part(inner(x))
        return keras.Model(x, K.Dense(2)(K.Flatten()(part(y))))

    def sound():
        return keras.Sequential(
            [
                keras.Input((20, 2)),
                K.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu"),
                K.BatchNormalization(center=False),
                K.MaxPooling1D(2),
                K.SeparableConv1D(5, 3, activation="relu"),
                K.ZeroPadding1D(1),
                K.AveragePooling1D(2, padding="same"),
                K.SpatialDropout1D(0.1),
                K.UpSampling1D(2),
                K.Cropping1D((1, 0)),
                K.GlobalAveragePooling1D(),
                K.Dense(3, activation="sigmoid"),
            ]
        )

    def autoencoder():
        layers = [
            keras.Input((12,)),
            K.Normalization(mean=list(np.arange(12.0)), variance=list(np.arange(1.0, 13))),
        ]
        for n in (8, 3, 8):
            layers += [K.Dense(n), K.BatchNormalization(), K.ReLU()]
        return keras.Sequential([*layers, K.GaussianNoise(0.1), K.Dense(12)])

    def operations():
        x = image()
        y = K.Conv2D(4, 3, activation="mish")((2.0 - x / 1.5) * 0.5)
        y = -y[:, 1:, ::2, :3] * np.array([0.5, 2.0, 1.5], "float32") + np.ones((6, 1, 1), "float32") - 0.5
        y = y * (y + 1.0) - K.Activation("celu")(y)  # operations on two tensors
        y = K.Reshape((18, 3))(y)
        y = K.Conv1DTranspose(4, 3, strides=2, padding="valid")(K.RMSNormalization()(y))
        y = K.Conv1DTranspose(3, 4, strides=2, padding="same", activation="relu")(y)
        y = K.TimeDistributed(K.Dense(5, activation="tanh"))(K.Normalization(axis=None)(y))
        return keras.Model(x, K.TimeDistributed(K.Dense(2))(K.RepeatVector(3)(y[:, -2])))

    def channels_first():
        x = keras.Input((3, 9, 8))
        first = {"data_format": "channels_first"}
        y = K.Conv2D(4, 3, padding="same", activation="relu", **first)(x)
        y = K.BatchNormalization(axis=1)(y)
        y = K.MaxPooling2D(2, **first)(y)
        return keras.Model(x, K.Dense(3)(K.Flatten(**first)(y)))

    return {k: f for k, f in locals().items() if callable(f) and k not in ("image", "K")}


def randomized(model, seed: int = 0):
    """The model with random variables of sizes that keep activations in range."""
    rng = np.random.default_rng(seed)
    for v in model.variables:
        kind = v.path.split("/")[-1]
        if "seed" in kind or not np.issubdtype(np.dtype(str(v.dtype)), np.floating):
            continue
        if kind in ("moving_variance", "variance"):
            v.assign(rng.uniform(0.3, 2, v.shape))
        elif kind in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            v.assign(rng.standard_normal(v.shape) / np.sqrt(max(1, np.prod(v.shape[:-1]))))
        else:
            v.assign(rng.standard_normal(v.shape) * 0.5)
    return model


def inputs(model, seed: int = 1) -> np.ndarray:
    """A batch of three."""
    return np.random.default_rng(seed).standard_normal((3, *model.input_shape[1:])).astype(np.float32)


def main() -> None:
    """Write all of them."""
    folder = Path(sys.argv[1])
    for name, make in models().items():
        model = randomized(make())
        x = inputs(model)
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
        np.savez_compressed(folder / f"{name}.npz", x=x, y=np.asarray(model.predict(x, verbose=0)))
    model.save_weights(folder / f"{name}_only.weights.h5")
    (folder / f"{name}_only.json").write_text(model.to_json())


if __name__ == "__main__":
    main()
