"""The layers that are measured: the list, the arrays of one, and what it should give.

The list itself is `crates/sepconv/benches/shapes.json`, which the crate's own benches read too.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
FILE = ROOT / "crates/sepconv/benches/shapes.json"


@dataclasses.dataclass(frozen=True)
class Shape:
    """A separable convolution with padding SAME; strides and rates are the same in both directions."""

    name: str
    input: tuple  # batch, height, width, in_channels
    channel_multiplier: int
    kernel: int
    stride: int
    rate: int
    out_channels: int

    @property
    def k(self):
        return self.input[3] * self.channel_multiplier

    @property
    def output(self):
        batch, height, width, _ = self.input
        return batch, -(-height // self.stride), -(-width // self.stride), self.out_channels

    @property
    def depthwise_filter(self):
        return self.kernel, self.kernel, self.input[3], self.channel_multiplier

    @property
    def pointwise_filter(self):
        return 1, 1, self.k, self.out_channels

    @property
    def operations(self):
        """Multiplications and additions; taps on the padding count."""
        batch, height, width, _ = self.output
        return 2 * batch * height * width * self.k * (self.kernel**2 + self.out_channels)

    @property
    def attributes(self):
        """As `tf.nn.separable_conv2d` takes them."""
        return {"strides": [1, self.stride, self.stride, 1], "padding": "SAME", "dilations": [self.rate] * 2}

    @property
    def pads(self):
        """Height's and width's padding: before, after; TensorFlow's rule."""
        both = []
        for size, out in zip(self.input[1:3], self.output[1:3], strict=True):
            total = max((out - 1) * self.stride + (self.kernel - 1) * self.rate + 1 - size, 0)
            both.append((total // 2, total - total // 2))
        return both

    def request(self):
        """As the processes take it."""
        return dataclasses.asdict(self)


def from_request(request):
    return Shape(**{**request, "input": tuple(request["input"])})


SHAPES = {row["name"]: from_request(row) for row in json.loads(FILE.read_text())}


def _chain(size, layers, name):
    """A network's layers from (out_channels, stride of the layer, stride of the pooling behind it)."""
    (size, channels), rows = size, []
    for number, (out_channels, stride, pooling) in enumerate(layers, 1):
        shape = Shape(f"{name}_{number}", (1, size, size, channels), 1, 3, stride, 1, out_channels)
        rows.append((shape, pooling))
        size, channels = -(-shape.output[1] // pooling), out_channels
    return rows


# The separable layers of whole networks, shapes only, each with the stride of the pooling behind it.
NETWORKS = {
    "MobileNet v1, 224": _chain(
        (112, 32),
        [(64, 1, 1), (128, 2, 1), (128, 1, 1), (256, 2, 1), (256, 1, 1), (512, 2, 1)]
        + [(512, 1, 1)] * 5
        + [(1024, 2, 1), (1024, 1, 1)],
        "mbv1",
    ),
    "Xception, 299": _chain(
        (147, 64),
        [(128, 1, 1), (128, 1, 2), (256, 1, 1), (256, 1, 2), (728, 1, 1), (728, 1, 2)]
        + [(728, 1, 1)] * 24
        + [(728, 1, 1), (1024, 1, 2), (1536, 1, 1), (2048, 1, 1)],
        "xception",
    ),
}


# Whole models of Keras, built by `architectures`: their usual inputs, without the batch.
HEAD = "DeepLab head"
INPUTS = {
    "MobileNet": (224, 224, 3),
    "Xception": (299, 299, 3),
    HEAD: (33, 33, 2048),
    "MobileNetV2": (224, 224, 3),
    "MobileNetV3Small": (224, 224, 3),
    "EfficientNetB0": (224, 224, 3),
    "NASNetMobile": (224, 224, 3),
}


def arrays(shape):
    """Input and filters in f32, the same in every run; products of filters of ones keep the input's size."""
    random = np.random.default_rng(1)
    sizes = {"input": 1, "depthwise_filter": 1 / shape.kernel, "pointwise_filter": shape.k**-0.5}
    return {
        name: random.standard_normal(getattr(shape, name), np.float32) * np.float32(size)
        for name, size in sizes.items()
    }


def write(folder, named):
    for name, array in named.items():
        array.tofile(folder / name)


def read(folder, shape):
    """What `write` wrote: input, depthwise filter, pointwise filter."""
    names = ("input", "depthwise_filter", "pointwise_filter")
    return [np.fromfile(Path(folder) / name, np.float32).reshape(getattr(shape, name)) for name in names]


def expected(shape, named):
    """What every contender should give, give or take the order of its sums: taps in f32, products in numpy's."""
    input, depthwise_filter, pointwise_filter = named.values()
    batch, height, width, _ = shape.output
    padded = np.pad(input, [(0, 0), *shape.pads, (0, 0)])
    sums = np.zeros((batch, height, width, shape.input[3], shape.channel_multiplier), np.float32)
    for i in range(shape.kernel):
        for j in range(shape.kernel):
            rows = slice(i * shape.rate, i * shape.rate + (height - 1) * shape.stride + 1, shape.stride)
            columns = slice(j * shape.rate, j * shape.rate + (width - 1) * shape.stride + 1, shape.stride)
            sums += padded[:, rows, columns, :, np.newaxis] * depthwise_filter[i, j]
    return sums.reshape(batch, height, width, shape.k) @ pointwise_filter[0, 0]


def difference(found, wanted):
    """The largest deviation as a fraction of the largest value; None where the number of elements differs."""
    if found.size != wanted.size:
        return None
    return float(np.max(np.abs(found.ravel() - wanted.ravel())) / np.max(np.abs(wanted)))
