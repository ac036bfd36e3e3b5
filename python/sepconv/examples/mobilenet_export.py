"""Exports Keras's MobileNet v1 to a safetensors file, from which a Rust program gives TensorFlow's bits without it.

`python -m sepconv.examples.mobilenet_export mobilenet.safetensors` writes every filter in TensorFlow's layout, every
batch normalisation as the two vectors that TensorFlow's graphs make of it, and the order in which TensorFlow takes the
sums of each layer in this process: for so many images at a time, with its threads, with oneDNN or without. The program
is `crates/sepconv/examples/mobilenet`. Without a file of weights they are random, those of normalisations too. Exit
status: 0 it is written, 1 something given cannot be used, or TensorFlow follows an order that the kernels do not.
"""

import argparse
import itertools
import sys
from pathlib import Path

try:
    import keras
    import numpy as np
    import tensorflow as tf
    from safetensors.numpy import save_file
    from tensorflow.python.util import _pywrap_util_port
except ModuleNotFoundError as missing:
    needs = "pip install tensorflow-cpu safetensors"
    print(f"mobilenet_export: error: no module {missing.name}: {needs}", file=sys.stderr)
    sys.exit(1)

import sepconv
from sepconv import _arguments, _library, _orders, _probes
from sepconv._command import BadInput, check_place, natural, one_line, positive, shown, status_of

BLOCKS = range(1, 14)
STRIDE_1 = [1, 1, 1, 1]


# The network


def network(options):
    """Keras's model, with the weights of the file or with random ones."""
    shape = options.size, options.size, 3
    try:
        model = keras.applications.MobileNet(shape, options.alpha, classes=options.classes, weights=None)
    except ValueError as error:
        raise BadInput(one_line(error)) from None
    if options.weights is None:
        randomise(model, options.seed)
        return model
    try:
        model.load_weights(options.weights)
    except (OSError, ValueError) as error:
        raise BadInput(f"--weights {options.weights}: {one_line(error)}") from None
    return model


def randomise(model, seed):
    """Weights under which the images pass through every layer: as Keras makes them, normalisations change nothing."""
    random = np.random.default_rng(seed)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.2, 0.8), "moving_mean": (-0.2, 0.2), "moving_variance": (0.5, 1.5)}
    for variable in model.variables:
        name, shape = variable.name, variable.shape
        if name in ranges:
            variable.assign(random.uniform(*ranges[name], shape).astype(np.float32))
        elif name == "bias":
            variable.assign(random.uniform(-1, 1, shape).astype(np.float32))
        elif name == "kernel":
            products = np.prod(shape[:2] if shape[-1] == 1 else shape[:3])
            variable.assign(random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / products)))
        elif name != "seed_generator_state":
            raise AssertionError(f"a weight that is not known here: {variable.path}")


@tf.function
def scale_and_offset(mean, variance, gamma, beta, epsilon):
    """What `tf.nn.batch_normalization`, which Keras calls, makes of a normalisation in a graph: x * scale + offset."""
    scale = tf.math.rsqrt(variance + epsilon) * gamma
    return scale, beta - mean * scale


def tensors_of(model):
    """Arrays by name: every layer's filter, and the vectors behind it."""
    tensors = {}
    for name in ("conv1", *(f"conv_{part}_{block}" for block in BLOCKS for part in ("dw", "pw"))):
        layer, normalisation = model.get_layer(name), model.get_layer(f"{name}_bn")
        variables = [getattr(normalisation, of) for of in ("moving_mean", "moving_variance", "gamma", "beta")]
        vectors = scale_and_offset(*(variable.value for variable in variables), epsilon=normalisation.epsilon)
        tensors[f"{name}.filter"] = layer.kernel.numpy()
        tensors[f"{name}.scale"], tensors[f"{name}.offset"] = (vector.numpy() for vector in vectors)
    classifier = model.get_layer("conv_preds")
    tensors["conv_preds.filter"], tensors["conv_preds.offset"] = classifier.kernel.numpy(), classifier.bias.numpy()
    return tensors


# The orders of the sums


def orders_of(model, batch):
    """The texts of the numerics, by the layers' names."""
    filters = model.get_layer("conv1").kernel.shape
    image = (batch, *model.input_shape[1:])
    orders = {"conv1": followed("conv1", order_of_the_first(image, filters))}
    image = (batch, *model.get_layer("conv1").output.shape[1:])
    for block in BLOCKS:
        depthwise, pointwise = (model.get_layer(f"conv_{part}_{block}") for part in ("dw", "pw"))
        # Keras pads by a layer of its own where strides are 2: what TensorFlow's operation sees is a larger image.
        image = (batch, *depthwise.input.shape[1:])
        specs = [tf.TensorSpec(shape) for shape in (image, depthwise.kernel.shape, pointwise.kernel.shape)]
        explained = sepconv.explain(*specs, [1, *depthwise.strides, 1], depthwise.padding.upper())
        orders[f"block_{block}"] = followed(f"block_{block}", explained)
    classifier = model.get_layer("conv_preds").kernel.shape
    k = classifier[2]
    specs = [tf.TensorSpec(shape) for shape in ([batch, 1, 1, k], [1, 1, k, 1], classifier)]
    orders["conv_preds"] = followed("conv_preds", sepconv.explain(*specs, STRIDE_1, "VALID"))
    return orders


def followed(name, order):
    if order.numerics is None:
        raise BadInput(f"{name}: {order.reason}")
    return order.numerics


def order_of_the_first(image, filters):
    """The order of an ordinary 3x3 convolution with strides of 2, as a product of patches, 27 numbers, with its filter.

    Patches overlap by one pixel, so that TensorFlow is asked four times for the product of any patches: each time for
    those of every second row and column. Those that reach into the padding are not asked for; zeros change no sum.
    """
    batch, height, width, _ = image
    rows, columns, k = height // 2 - 1, width // 2 - 1, int(np.prod(filters[:3]))
    top, left = height % 2, width % 2  # what padding "SAME" puts before the image; all patches from here on are inside
    patches, shape, result = (batch, rows, columns, k), (1, 1, k, filters[3]), (batch, rows, columns, filters[3])
    specs = [tf.TensorSpec(shape) for shape in (patches, (1, 1, k, 1), shape)]
    call = _arguments.normalise(*specs, STRIDE_1, "VALID", "NHWC", None)
    probe = _probes.Eager(call, _library.geometry(call.request()))

    def product(pixels, filter):
        pixels, filter = pixels.reshape(batch, rows, columns, *filters[:3]), filter.reshape(filters)
        products = np.empty(result, np.float32)
        for turn in itertools.product(range(2), range(2)):
            chosen = (slice(None), *(slice(start, None, 2) for start in turn))
            asked = np.zeros(image, np.float32)
            for i, j in itertools.product(range(3), range(3)):
                place = asked[:, 2 * turn[0] + top + i :: 4, 2 * turn[1] + left + j :: 4]
                values = pixels[chosen][:, :, :, i, j]
                place[:, : values.shape[1], : values.shape[2]] = values
            answer = tf.nn.conv2d(asked, filter, 2, "SAME").numpy()[:, top:, left:]
            products[chosen] = answer[:, :rows, :columns][chosen]
        return products

    parts = {0: (probe.depthwise, patches, (1, 1, k, 1), patches), 1: (product, patches, shape, result)}
    return _orders._ask(call, {}, parts)


# The program


def arguments():
    parser = argparse.ArgumentParser(prog="mobilenet_export", description=__doc__.splitlines()[0])
    parser.error = refuse
    add = parser.add_argument
    add("output", type=Path, help="the file that is written")
    add("--alpha", type=multiplier, default=1.0, help="the width multiplier (default %(default)s)")
    add("--size", type=positive, default=224, help="height and width of the images, 32 or more (default %(default)s)")
    add("--classes", type=positive, default=1000, help="(default %(default)s)")
    add("--batch", type=positive, default=1, help="images at a time (default %(default)s)")
    add("--threads", type=positive, help="TensorFlow's, on which its bits depend (default: what it takes by itself)")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights", type=Path, help="a file that Keras saved from such a model, of weights or whole")
    weights.add_argument("--seed", type=natural, default=1, help="of random weights (default %(default)s)")
    return parser.parse_args()


def refuse(message):
    raise BadInput(message)


def multiplier(text):
    value = float(text)
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def run(options):
    check_place("output", options.output)
    if options.threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    model = network(options)
    onednn = "on" if _pywrap_util_port.IsMklEnabled() else "off"
    metadata = {
        **{"format": "sepconv mobilenet 1", "alpha": repr(options.alpha), "resolution": str(options.size)},
        **{"batch": str(options.batch), "tensorflow": f"{tf.__version__}, oneDNN {onednn}"},
        **{f"numerics.{name}": text for name, text in orders_of(model, options.batch).items()},
    }
    tensors = tensors_of(model)
    try:
        save_file(tensors, options.output, metadata)
    except Exception as error:  # the library's own class, whatever went wrong
        raise BadInput(f"{options.output}: {one_line(error)}") from None
    numbers = sum(array.size for array in tensors.values())
    print(f"wrote {shown(options.output)}: {len(tensors)} tensors, {numbers} numbers, {len(BLOCKS)} blocks' orders")
    return 0


def main():
    return status_of("mobilenet_export", lambda: run(arguments()))


if __name__ == "__main__":
    sys.exit(main())
