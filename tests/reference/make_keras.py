"""A small network of Keras -> tests/data/onnx/keras.onnx and keras.npz.

    KERAS_BACKEND=torch python tests/reference/make_keras.py    # with keras 3, torch 2.13.0, onnx and onnxscript

Keras writes the file itself, for images `[N,H,W,C]`; the scores are those that Keras predicts.
"""
import os

import keras
import numpy as np
from keras import layers

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "onnx")
SIZE = 48


def block(x, channels, activation):
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)  # as MobileNet's
    x = layers.Conv2D(channels, 3, strides=2, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = activation(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return activation(x)


def network():
    images = keras.Input((SIZE, SIZE, 3))
    x = block(images, 8, layers.ReLU(6.0))
    x = block(x, 12, layers.Activation("swish"))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Multiply()([x, layers.Conv2D(12, 1, activation="sigmoid")(gate)])
    x = block(x, 16, layers.ReLU(6.0))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Dense(5, activation="softmax")(x))


def fill(model, random):
    for variable in model.variables:
        shape, path = tuple(variable.shape), variable.path
        if "seed" in path:
            continue
        if "gamma" in path or "variance" in path:
            variable.assign(random.uniform(0.6, 1.5, shape))
        elif len(shape) == 1:
            variable.assign(random.normal(0, 0.2, shape))
        else:
            inputs = 9 if "depthwise" in path else np.prod(shape[:-1])
            variable.assign(random.normal(0, (16 / inputs if "dense" in path else 4 / inputs) ** 0.5, shape))


def main():
    random = np.random.default_rng(7)
    model = network()
    fill(model, random)
    images = random.normal(0, 1, (3, SIZE, SIZE, 3)) * [[[[0.3]]], [[[1.0]]], [[[3.0]]]] + random.normal(0, 1, (3, 1, 1, 3))
    images = images.astype(np.float32)
    scores = model.predict(images, verbose=0)
    model.export(os.path.join(FOLDER, "keras.onnx"), format="onnx", verbose=False)
    np.savez(os.path.join(FOLDER, "keras.npz"), input=images.transpose(0, 3, 1, 2).astype(np.float32), scores=scores)
    print(keras.__version__, scores)


if __name__ == "__main__":
    main()
