"""Small models whose files differ between the versions of Keras: models as layers, shared layers, operations.

    pip install "tensorflow-cpu==2.12.*"        # or 2.13, 2.15; or keras and torch, for Keras 3
    python tests/keras/forms.py FOLDER [NAME ...]
    tar -C FOLDER --sort=name -cJf tests/keras/forms.tar.xz .        # once all versions have written theirs

Each is written as NAME-VERSION.h5, .keras, .weights.h5 with .json, and its inputs and outputs as .npz.
Keras 2 also writes its older weights, NAME-VERSION.order.h5, beside the .json of a model whose layers
have other names.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

VERSION = keras.__version__
OLD = VERSION.startswith("2.")
if OLD:
    from tensorflow import keras
K = keras.layers


def models() -> dict:
    """The models by name: functions, so that one can be made without the others."""

    def inputs():
        """Inputs in another order than the layers, a nested model with two, one called with a dict."""
        early, late = keras.Input((4,), name="early"), keras.Input((4,), name="late")
        d = K.Dense(4, activation="relu", name="d")(early)
        p, q = keras.Input((4,), name="p"), keras.Input((4,), name="q")
        pair = keras.Model([q, p], K.Subtract()([K.Dense(4)(p), q]), name="pair")
        a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
        named = keras.Model({"b": b, "a": a}, K.Subtract()([a, K.Dense(4)(b)]), name="named")
        y = K.Subtract()([d, late])
        y = K.Concatenate()([pair([y, late]), named({"b": d, "a": late})])
        return keras.Model([late, early], [K.Dense(2, name="second")(y), K.Dense(3, name="first")(y)])

    def calls():
        """Nested models whose first or second call is an output, and autoencoders made of models."""

        def part(kind, n, m, name):
            if kind == "functional":
                i = keras.Input((n,))
                return keras.Model(i, K.Dense(m, activation="elu")(i), name=name)
            first = [keras.Input((n,))] if kind == "sequential" else []
            return keras.Sequential([*first, K.Dense(m, activation="tanh")], name=name)

        x = keras.Input((5,), name="x")
        outputs = []
        for kind in ("functional", "sequential", "deferred"):
            enc, dec = part(kind, 5, 3, f"{kind}_enc"), part(kind, 3, 5, f"{kind}_dec")
            first = enc(x)
            second = enc(dec(K.Dense(3, name=f"{kind}_between")(first)))
            outputs += [dec(second), first]
        return keras.Model(x, outputs)

    def frozen():
        """Trained and frozen layers in nested models, three deep; a Sequential that begins with a model."""
        i = keras.Input((6, 5, 3))
        y = K.Conv2D(4, 3, padding="same", name="c1")(i)
        y = K.BatchNormalization(name="b1")(y)
        y = K.Conv2D(4, 1, activation="relu", name="c2")(y)
        y = K.BatchNormalization(name="b2")(y)
        base = keras.Model(i, y, name="base")
        base.trainable = False
        base.layers[3].trainable = True
        neck = keras.Sequential([K.Conv2D(4, 1, name="c3"), K.BatchNormalization(name="b3")], name="neck")
        middle = keras.Sequential([base, neck, K.Conv2D(2, 2, name="c4")], name="middle")
        model = keras.Sequential([middle, K.Flatten(), K.BatchNormalization(name="b4"), K.Dense(3)])
        model.build((None, 6, 5, 3))
        middle.layers[2].trainable = False
        return model

    def shared():
        """One layer in two nested models, each of which has others of its class before and after it."""
        twin = K.Dense(4, activation="tanh", name="twin")
        i, j = keras.Input((4,)), keras.Input((4,))
        left = keras.Model(i, K.Dense(3, name="left_d")(twin(i)), name="left")
        right = keras.Model(j, K.Dense(3, name="right_d")(twin(K.Dense(4, name="pre_d")(j))), name="right")
        x = keras.Input((4,), name="x")
        return keras.Model(x, K.Dense(2, name="top")(K.Add()([left(x), right(x)])))

    def counted():
        """Several layers of a class, with weights and without; a wrapper."""
        return keras.Sequential(
            [
                keras.Input((12, 3)),
                K.Conv1D(4, 3, activation="relu"),
                K.Activation("tanh"),
                K.Conv1D(4, 3),
                K.BatchNormalization(),
                K.Activation("hard_sigmoid"),
                K.BatchNormalization(scale=False),
                K.Conv1D(5, 1),
                K.Dropout(0.1),
                K.TimeDistributed(K.Dense(3)),
                K.LayerNormalization(),
                K.PReLU(),
                K.TimeDistributed(K.Dense(4)),
                K.Flatten(),
                K.Dense(4),
                K.Dense(3, activation="softmax"),
            ]
        )

    def arrays():
        """Constants that are arrays: Rescaling, Normalization of one and of several axes, inverted."""
        x = keras.Input((4, 5, 3), name="x")
        y = K.Rescaling(np.array([1.0, 0.5, 2.0], "float32"), offset=np.array([0.1, -0.2, 0.3]))(x)
        y = K.Normalization(mean=np.array([0.1, 0.2, 0.3]), variance=np.array([1.0, 2.0, 0.5]))(y)
        y = K.Normalization(axis=(1, 3))(y)
        told = not VERSION.startswith("2.12")  # which does not write down whether it is inverted
        y = K.Normalization(axis=-1, mean=[0.5, 0.1, 0.2], variance=[1.0, 2.0, 3.0], invert=told)(y)
        y = K.Rescaling(np.linspace(0.5, 2, 4).reshape(4, 1, 1))(y)
        y = K.Conv2D(2, 3, activation="relu")(y)
        return keras.Model(x, K.Dense(2)(K.Flatten()(y)))

    def caffe():
        """The preprocessing of keras.applications inside the model: channels turned around, means, scales."""
        x = keras.Input((6, 6, 3), name="x")
        y = keras.applications.resnet50.preprocess_input(x)
        y = K.Add()([y, keras.applications.mobilenet_v2.preprocess_input(x)])
        y = K.Add()([y, keras.applications.densenet.preprocess_input(x)])
        y = K.Conv2D(2, 3, activation="relu")(y)
        return keras.Model(x, K.Dense(2)(K.GlobalAveragePooling2D()(y)))

    def operations():
        """Calls of keras.ops or tf that are layers of ours."""
        return _operations_2() if OLD else _operations_3()

    def volumes():
        """Layers in three dimensions."""
        x = keras.Input((7, 6, 5, 2), name="x")
        y = K.Conv3D(4, (3, 2, 2), strides=(1, 2, 1), padding="same", activation="relu")(x)
        y = K.BatchNormalization()(y)
        y = K.Conv3D(4, 2, groups=2, dilation_rate=(2, 1, 1))(K.ZeroPadding3D(((1, 0), (0, 1), (1, 1)))(y))
        y = K.SpatialDropout3D(0.1)(K.UpSampling3D((1, 2, 1))(y))
        y = K.AveragePooling3D(2, strides=1, padding="same")(K.Cropping3D(((0, 1), (1, 0), (0, 1)))(y))
        z = K.MaxPooling3D((2, 1, 2), padding="same")(y)
        ends = [K.GlobalAveragePooling3D()(y), K.GlobalMaxPooling3D()(z), K.Flatten()(z)]
        return keras.Model(x, K.Dense(3)(K.Concatenate()(ends)))

    def passed():
        """Layers that change nothing once a model is trained, and crops."""
        names = ("Identity", "RandomFlip", "RandomRotation", "RandomInvert", "RandomShear", "GaussianNoise")
        options = {"RandomRotation": (0.2,), "GaussianNoise": (0.1,)}
        layers = [getattr(K, name)(*options.get(name, ())) for name in names if hasattr(K, name)]
        return keras.Sequential(
            [
                keras.Input((7, 6, 3)),
                *layers,
                K.CenterCrop(4, 3),
                K.Conv2D(4, 2, activation="tanh" if OLD else "hard_tanh"),
                K.Cropping2D(((1, 0), (0, 1))),
                K.Flatten(),
                K.Dense(2),
            ]
        )

    def halves():
        """Variables of type bfloat16, which HDF5 has not; the outputs are those of float32."""
        keras.config.set_dtype_policy("bfloat16")
        x = keras.Input((6,), name="x")
        inner = keras.Sequential([keras.Input((6,)), K.Dense(5, activation="relu")], name="inner")
        model = keras.Model(x, K.Dense(3)(inner(x)))
        keras.config.set_dtype_policy("float32")
        return model

    made = (inputs, calls, frozen, shared, counted, arrays, caffe, operations, volumes, passed)
    made = made if OLD else (*made, halves)
    return {make.__name__: make for make in made}


def _operations_2():
    import tensorflow as tf

    x = keras.Input((6, 5, 4), name="x")
    y = tf.nn.relu(x)
    y = y + tf.nn.relu6(x) + tf.nn.elu(x) + tf.nn.selu(x) + tf.nn.gelu(x) + tf.nn.silu(x)
    y = y + tf.nn.leaky_relu(x, alpha=0.1) + tf.math.tanh(x) + tf.sigmoid(x) + tf.math.softplus(x)
    y = y + tf.abs(x) + tf.square(x) + tf.clip_by_value(x, -0.5, 0.5) + tf.keras.activations.relu(x)
    y = y + tf.nn.softmax(x) + tf.nn.log_softmax(x) + tf.nn.bias_add(x, tf.constant([0.1, 0.2, 0.3, 0.4]))
    y = tf.pad(y, [[0, 0], [1, 0], [0, 2], [0, 0]])
    y = tf.concat([y, tf.reverse(y, axis=[1]), y[..., ::-1]], axis=-1)
    y = tf.transpose(y, [0, 2, 1, 3])
    y = y - tf.reduce_mean(y, axis=[1, 2], keepdims=True)
    z = tf.reshape(y, (-1, 7, 7 * 12))
    z = (
        tf.reduce_sum(tf.expand_dims(z, 1), axis=2)
        + tf.squeeze(tf.reduce_max(z, axis=1, keepdims=True))[:, None]
    )
    a, b = tf.split(z[:, 0], 2, axis=-1)
    w = np.linspace(-1, 1, 42 * 3).reshape(42, 3).astype("float32")
    z = tf.matmul(a, tf.constant(w)) + b[:, :3]
    z = tf.tile(z, [1, 2]) * tf.constant([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    z = tf.stack([z, tf.maximum(z, 0.1)], axis=1)
    z = tf.cast(z, "float32") / tf.constant(2.0)
    return keras.Model(x, K.Dense(2)(K.Flatten()(z)))


def _operations_3():
    from keras import ops

    x = keras.Input((6, 5, 4), name="x")
    y = ops.relu(x)
    y = y + ops.relu6(x) + ops.elu(x) + ops.selu(x) + ops.gelu(x) + ops.silu(x) + ops.hard_sigmoid(x)
    y = y + ops.leaky_relu(x, 0.1) + ops.tanh(x) + ops.sigmoid(x) + ops.softplus(x) + ops.hard_silu(x)
    y = y + ops.abs(x) + ops.square(x) + ops.clip(x, -0.5, 0.5) + ops.power(x, 3) + ops.celu(x)
    y = y + ops.softmax(x) + ops.log_softmax(x)
    y = ops.pad(y, [[0, 0], [1, 0], [0, 2], [0, 0]])
    y = ops.concatenate([y, ops.flip(y, axis=1), ops.flip(y, axis=-1)], axis=-1)
    y = ops.transpose(y, [0, 2, 1, 3])
    y = y - ops.mean(y, axis=[1, 2], keepdims=True)
    y = ops.swapaxes(ops.moveaxis(y, 1, 2), 1, 2)
    z = ops.reshape(y, (-1, 7, 7 * 12))
    z = ops.sum(ops.expand_dims(z, 1), axis=2) + ops.max(z, axis=1, keepdims=True)
    a, b = ops.split(ops.squeeze(z, 1), 2, axis=-1)
    w = np.linspace(-1, 1, 42 * 3).reshape(42, 3).astype("float32")
    z = ops.matmul(a, w) + b[:, :3]
    z = ops.tile(z, [1, 2]) * np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "float32")
    z = ops.repeat(ops.stack([z, ops.maximum(z, 0.1)], axis=1), 2, axis=2)
    z = ops.cast(z, "float32") / 2.0
    z = ops.add(z, ops.take(z, [1, 0], axis=1))
    image = ops.max_pool(ops.average_pool(x, 2, 1), 2)
    return keras.Model(x, K.Dense(2)(K.Concatenate()([K.Flatten()(z), K.Flatten()(image)])))


def randomized(model, seed: int = 0):
    """The model with random variables of sizes that keep activations in range."""
    rng = np.random.default_rng(seed)
    values = []
    for w, v in zip(model.weights, model.get_weights()):
        kind = getattr(w, "path", w.name).split("/")[-1].split(":")[0]
        if kind in ("moving_variance", "variance"):
            v = rng.uniform(0.3, 2, v.shape)
        elif kind == "count":
            v = np.zeros(v.shape)
        elif "kernel" in kind:
            v = rng.standard_normal(v.shape) / np.sqrt(max(1, np.prod(v.shape[:-1])))
        else:
            v = rng.standard_normal(v.shape) * 0.5
        values.append(v)
    model.set_weights(values)
    for layer in model._flatten_layers() if hasattr(model, "_flatten_layers") else []:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def inputs(model, seed: int = 1) -> list[np.ndarray]:
    """A batch of three for each input, in the model's order."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((3, *t.shape[1:])).astype(np.float32) for t in model.inputs]


def outputs(model, x: list[np.ndarray]) -> list[np.ndarray]:
    """What Keras computes, as a list."""
    if not OLD and model.dtype == "bfloat16":
        values = [keras.ops.convert_to_numpy(keras.ops.cast(v, "float32")) for v in model.variables]
        config = json.loads(json.dumps(model.get_config()).replace("bfloat16", "float32"))
        model = keras.Model.from_config(config)
        model.set_weights(values)
    y = model.predict(x if len(x) > 1 else x[0], verbose=0)
    return [np.asarray(v) for v in (y if isinstance(y, list) else [y])]


def write(name: str, folder: Path) -> None:
    """One model in all forms."""
    keras.backend.clear_session()
    model = randomized(models()[name]())
    x = inputs(model)
    stem = f"{name}-{'.'.join(VERSION.split('.')[:2])}"
    for ending in ("keras", "h5", "weights.h5"):
        save = model.save_weights if ending == "weights.h5" else model.save
        options = {"save_format": "keras_v3"} if VERSION.startswith("2.12") and ending == "keras" else {}
        try:
            save(str(folder / f"{stem}.{ending}"), **options)
        except Exception as error:
            print(f"{stem}.{ending} can't be written: {error!r:.300}")
    (folder / f"{stem}.json").write_text(model.to_json())
    if OLD:
        model.save_weights(str(folder / f"{stem}.order.h5"), save_format="h5")
        (folder / f"{stem}.order.json").write_text(models()[name]().to_json())
    arrays = {f"x{n}": v for n, v in enumerate(x)} | {f"y{n}": v for n, v in enumerate(outputs(model, x))}
    np.savez_compressed(folder / f"{stem}.npz", **arrays)


def main() -> None:
    """Write those that are named, or all."""
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or models():
        try:
            write(name, folder)
        except Exception as error:
            print(f"{name} can't be made: {error!r:.600}")


if __name__ == "__main__":
    main()
