"""What layers cost: parameters and multiply-adds as they are in a model, as standard convolutions and as depthwise
separable ones, in groups, and scaled by MobileNet's multipliers. Plain arithmetic; knows nothing of TensorFlow.

Parameters are those of filters and matrices: biases and normalisation are left out, as in MobileNet's tables. Taps on
the padding count as multiply-adds.
"""

import dataclasses
from fractions import Fraction

# What computes: every layer's work is of one of these, a separable layer's of two.
WORK = ("1x1", "depthwise", "convolution", "dense")


@dataclasses.dataclass(frozen=True)
class Cost:
    parameters: int = 0
    multiply_adds: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a model, images in NHWC.

    Attributes:
        name: Of the layer, as people call it; unique in a model.
        nodes: Names of the nodes of the graph that multiply, or that such a node stands for which `rewrite` put there.
        kind: "separable" (a depthwise and a 1x1 convolution behind it), "convolution", "grouped", "depthwise" (nothing
            1x1 behind it), "1x1", or "dense": a matrix product, or the convolution of a single pixel, which is one.
        input, output: `(batch, height, width, channels)`; a dense layer's images are pixels.
        kernel, strides, rate: Of height and width.
        groups: Of the channels of a grouped convolution; 1 for all others.
        channel_multiplier: Of the depthwise convolution; 1 for all others.
        padding: "SAME", "VALID", pairs of height and width, or None where the graph does not tell.
        between: Types of the nodes between the depthwise and the 1x1 convolution.
        weights: Names of what holds the filters, so that shared ones count once; none where they are computed.
        first, last: Whether it takes the model's input, or gives its output, with no other layer between: width
            multipliers leave its channels there alone.
        dtype: Name of its elements' type.
    """

    name: str
    nodes: tuple
    kind: str
    input: tuple
    output: tuple
    kernel: tuple = (1, 1)
    strides: tuple = (1, 1)
    rate: tuple = (1, 1)
    groups: int = 1
    channel_multiplier: int = 1
    padding: str | tuple | None = "VALID"
    between: tuple = ()
    weights: tuple = ("weights",)
    first: bool = False
    last: bool = False
    dtype: str = "float32"

    @property
    def in_channels(self) -> int:
        return self.input[3]

    @property
    def out_channels(self) -> int:
        return self.output[3]

    @property
    def spatial(self) -> bool:
        """Whether it is, or could be, separable: it looks at more than one pixel."""
        return self.kind in ("separable", "convolution", "grouped")

    def product(self, in_channels: int, out_channels: int, taps: int = 1) -> Cost:
        """Of every pixel of the output, from so many channels to so many."""
        filter, (batch, height, width, _) = taps * in_channels * out_channels, self.output
        return Cost(filter if self.weights else 0, batch * height * width * filter)

    def work(self) -> dict[str, Cost]:
        """What it costs in its model, by what computes."""
        taps = self.kernel[0] * self.kernel[1]
        k = self.in_channels * self.channel_multiplier
        if self.kind in ("separable", "depthwise"):
            pointwise = {"1x1": self.product(k, self.out_channels)} if self.kind == "separable" else {}
            return {"depthwise": self.product(k, 1, taps), **pointwise}
        kind = self.kind if self.kind in WORK else "convolution"
        return {kind: self.product(self.in_channels // self.groups, self.out_channels, taps)}

    def cost(self) -> Cost:
        """What it costs in its model."""
        return sum(self.work().values(), Cost())

    def standard(self) -> Cost:
        """As a standard convolution of all channels to all channels."""
        return self.product(self.in_channels, self.out_channels, self.kernel[0] * self.kernel[1])

    def separable(self) -> Cost:
        """As a depthwise separable convolution; itself where there is nothing to separate."""
        return dataclasses.replace(self, kind="separable").cost() if self.spatial else self.cost()

    def predicted_ratio(self) -> Fraction | None:
        """1/out_channels + 1/(kernel*kernel), which separable over standard is where the channel multiplier is 1."""
        return Fraction(1, self.out_channels) + Fraction(1, self.kernel[0] * self.kernel[1]) if self.spatial else None

    def scaled(self, alpha: Fraction, extents: tuple) -> "Layer":
        """With its channels scaled as MobileNet scales them, rounding down, and another output height and width."""
        in_channels = self.in_channels if self.first else _thinned(self.in_channels, alpha)
        out_channels = self.out_channels if self.last else _thinned(self.out_channels, alpha)
        if self.kind == "depthwise":
            out_channels = in_channels * self.channel_multiplier
        return dataclasses.replace(
            self, input=(*self.input[:3], in_channels), output=(self.output[0], *extents, out_channels)
        )


def _thinned(channels: int, alpha: Fraction) -> int:
    return max(1, int(channels * alpha))


def total(costs_of_layers) -> Cost:
    """The sum of pairs of a layer and a cost; layers that share their weights have parameters once."""
    result, seen = Cost(), set()
    for layer, cost in costs_of_layers:
        result += dataclasses.replace(cost, parameters=0) if layer.weights in seen else cost
        seen.add(layer.weights)
    return result


def groups_of(channels: int) -> list[int]:
    """Numbers of groups from one to one per channel, each at least twice the one before; three and four, which
    Inception has, both where both divide the channels."""
    divisors, chosen = [n for n in range(1, channels + 1) if channels % n == 0], []
    for n in divisors:
        if not chosen or n in (3, 4) or n >= 2 * chosen[-1] and (n != 2 or not {3, 4} & set(divisors)):
            chosen.append(n)
    return chosen


def in_groups(layer: Layer, groups: int) -> Cost:
    """A convolution of each group of channels by itself, as many channels as before, and a 1x1 product behind it; of
    one group, the standard convolution, which needs none. One group per channel is depthwise separable."""
    if groups == 1:
        return layer.standard()
    channels, taps = layer.in_channels, layer.kernel[0] * layer.kernel[1]
    return layer.product(channels // groups, channels, taps) + layer.product(channels, layer.out_channels)


def squeezed(layer: Layer, channels: int) -> Cost:
    """As in Inception's towers: a 1x1 product to a few channels, and a standard convolution from these. With strides
    the 1x1 product has more pixels than the output."""
    taps, (batch, height, width, _) = layer.kernel[0] * layer.kernel[1], layer.input
    squeeze = layer.in_channels * channels
    return Cost(squeeze if layer.weights else 0, batch * height * width * squeeze) + layer.product(
        channels, layer.out_channels, taps
    )
