"""Whole networks of Keras with seeded weights, as concrete functions whose filters are variables: `ci/bench --models`
measures them, and the tests of existing models rewrite them."""

import keras
import numpy as np
import tensorflow as tf

from benchmark.shapes import HEAD, INPUTS


def build(name, input_shape=None, seed=1, **more):
    """The network with random weights; it gives logits."""
    keras.utils.set_random_seed(seed)
    input_shape = input_shape or INPUTS[name]
    if name == HEAD:
        model = deeplab_head(input_shape, classes=21)
    else:
        make = getattr(keras.applications, name)
        model = make(input_shape=input_shape, weights=None, classifier_activation=None, **more)
    randomise(model, seed)
    return model


def deeplab_head(input_shape, classes):
    """DeepLab's: separable convolutions at three rates beside each other, then classes out of all of them together."""
    layers = keras.layers
    image, filters = keras.Input(input_shape), 256

    def normalised(x):
        return layers.ReLU()(layers.BatchNormalization()(x))

    branches = [
        normalised(layers.SeparableConv2D(filters, 3, padding="same", dilation_rate=rate, use_bias=False)(image))
        for rate in (6, 12, 18)
    ]
    together = normalised(layers.Conv2D(filters, 1, use_bias=False)(layers.Concatenate()(branches)))
    return keras.Model(image, layers.Conv2D(classes, 1)(together))


def randomise(model, seed):
    """Weights under which images pass through every layer: as Keras makes them, normalisations change nothing, and
    behind some layers one image looks like the other."""
    random = np.random.default_rng(seed)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.2, 0.8), "moving_mean": (-0.2, 0.2), "moving_variance": (0.5, 1.5)}
    for variable in model.variables:
        name, shape = variable.name, variable.shape
        if name in ranges:
            variable.assign(random.uniform(*ranges[name], shape))
        elif name.endswith("kernel") and len(shape) == 4:
            depthwise = name == "depthwise_kernel" or shape[-1] == 1
            products = np.prod(shape[:2] if depthwise else shape[:3])
            variable.assign(random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / products)))


def function_of(model, batch):
    """Inference on so many images, or on any number of them (None), as a concrete function of a tensor `image`."""
    function = tf.function(lambda image: {"logits": model(image, training=False)}, autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec([batch, *model.input_shape[1:]], name="image"))
    concrete.model = model  # whose variables it does not keep alive itself
    return concrete
