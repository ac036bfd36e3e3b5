"""Finds separable convolutions that a graph puts together from TensorFlow's operations: (Pad,) (SpaceToBatchND,)
DepthwiseConv2dNative, (BatchToSpaceND,) steps between, a 1x1 Conv2D, steps behind; and says of each which call it is.
Where no 1x1 Conv2D follows, or not by steps alone, it is the depthwise part with what stands behind that; and likewise
a 1x1 Conv2D that belongs to none.

A chain says why it is none that the op can take over; what is between and behind, it lists and does not judge.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util

from sepconv import _convolution, _library, _subgraphs
from sepconv._arguments import Call
from sepconv._steps import is_hard_swish, steps_of, sure, swish, useful

# What may stand between the two convolutions and behind them: each makes one image of the same extents of an image.
STEPS = {
    *("Add", "AddV2", "BiasAdd", "Div", "Maximum", "Minimum", "Mul", "RealDiv", "Sub"),
    *("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"),
    *("Elu", "Identity", "LeakyRelu", "Relu", "Relu6", "Selu", "Sigmoid", "Softplus", "Tanh"),
}

# Heights at which a padding that is computed when the graph runs is tried, and widths, beside each other: every
# remainder of common rates, and those of usual images.
_HEIGHTS = [*range(1, 41), 64, 129, 224, 299, 512]
_WIDTHS = [*range(17, 57), 65, 128, 225, 224, 513]


class Left(Exception):
    """Why something stays as it is; the message is a phrase."""


@dataclasses.dataclass(frozen=True)
class Chain:
    """One depthwise convolution and what belongs to it, or a 1x1 convolution alone, as operations of the graph that it
    was found in.

    `hindrance` says why the op cannot take it over; otherwise `pointwise` and `call` are there, all that is between is
    in `between_steps`, and what the op can take of that which is behind, from the first on, in `behind_steps`. Where
    the depthwise part stands alone, `pointwise` is None, there is nothing between, and the call has no out_channels.
    Where the 1x1 convolution does, `depthwise` is None, and the call's depthwise filter is a single tap.
    With a `pad`, whose zeros are the call's padding, `padded` is the call on what that gives.
    `alone` is that chain where the op may not know how TensorFlow computes what is between.
    """

    depthwise: tf.Operation | None = None
    pad: tf.Operation | None = None
    space_to_batch: tf.Operation | None = None
    batch_to_space: tf.Operation | None = None
    between: tuple = ()
    pointwise: tf.Operation | None = None
    behind: tuple = ()
    call: Call | None = None
    padded: Call | None = None
    between_steps: tuple = ()
    behind_steps: tuple = ()
    hindrance: str | None = None
    alone: "Chain | None" = None

    @property
    def input(self) -> tf.Tensor:
        return self.parts[0].inputs[0]

    @property
    def filters(self) -> tuple:
        return tuple(op.inputs[1] for op in (self.depthwise, self.pointwise) if op is not None)

    @property
    def parts(self) -> tuple:
        """The operations that the op stands for, in their order."""
        parts = self.pad, self.space_to_batch, self.depthwise, self.batch_to_space, *self.between, self.pointwise
        return tuple(part for part in parts if part is not None)

    def at(self, graph: tf.Graph) -> "Chain":
        """The same in a graph where its operations have the same names, and the input's shape may be known better; as
        far as a trial looks at it."""

        def there(ops):
            return tuple(graph.get_operation_by_name(op.name) for op in ops)

        parts = {"depthwise", "pad", "space_to_batch", "batch_to_space", "pointwise"}
        found = {part: there([getattr(self, part)])[0] for part in parts if getattr(self, part) is not None}
        chain = dataclasses.replace(self, **found, between=there(self.between), behind=there(self.behind))
        shape = [a if b is None else b for a, b in zip(self.call.input, _shape(chain.input), strict=True)]
        call = dataclasses.replace(self.call, input=tuple(shape))
        padded = None if self.padded is None else dataclasses.replace(call, input=_padded(call), padding="VALID")
        return dataclasses.replace(chain, call=call, padded=padded)

    def without_pad(self) -> "Chain":
        """The same, which leaves the Pad where it is."""
        return dataclasses.replace(self, pad=None, call=self.padded, padded=None)


def of_depthwise(depthwise: tf.Operation, kept: set) -> Chain:
    """That of a depthwise convolution; `kept` holds the names of tensors that somebody outside of the graph takes."""
    whole = _with_pad(_separable(depthwise, kept), kept)
    if whole.hindrance is None and sure(whole.between_steps) == useful(whole.between_steps):
        return whole
    alone = _with_pad(_alone(depthwise, kept), kept)
    # By itself, without padding, steps and dilation, TensorFlow's is one operation as well.
    more = alone.pad or alone.space_to_batch or any(step.word for step in alone.behind_steps)
    worthwhile = alone.hindrance is None and more
    if whole.hindrance is None:
        return dataclasses.replace(whole, alone=alone if worthwhile else None)
    return alone if worthwhile else whole


def of_pointwise(pointwise: tf.Operation, kept: set) -> Chain | None:
    """That of a convolution that belongs to no depthwise one; None if it is not 1x1, or has no steps behind it: by
    itself, TensorFlow's is one operation as well."""
    if _shape(pointwise.inputs[1])[:2] != (1, 1) or pointwise.get_attr("data_format") != b"NHWC":
        return None
    chain = Chain(pointwise=pointwise, behind=_behind(pointwise, kept))
    try:
        call = _call(chain)
    except Left as left:
        return dataclasses.replace(chain, hindrance=str(left)) if chain.behind else None
    steps = _useful(chain.behind, pointwise, call.pointwise_filter[3])
    return dataclasses.replace(chain, call=call, behind_steps=steps) if any(step.word for step in steps) else None


def _with_pad(chain: Chain, kept) -> Chain:
    """The same with the Pad in front of it, if all that does is to put zeros around images for this chain."""
    first, pad = chain.parts[0], chain.parts[0].inputs[0].op
    if chain.hindrance or chain.call.padding != "VALID" or _consumer(pad, kept) is not first:
        return chain
    zeros = _zeros(pad)
    if zeros is None:
        return chain
    call = unpadded(dataclasses.replace(chain.call, padding=zeros))
    if "error" in _library.geometry(call.request()):
        return chain
    return dataclasses.replace(chain, pad=pad, call=call, padded=chain.call)


def _zeros(pad) -> tuple | None:
    """How many zeros it puts above and below images, left and right of them; None if it does anything else."""
    if pad.type not in ("Pad", "PadV2") or _on_gpu(pad):
        return None
    paddings, *value = [tensor_util.constant_value(input) for input in pad.inputs[1:]]
    if paddings is None or paddings.shape != (4, 2) or paddings[[0, 3]].any():
        return None
    # Products with -0 have another sign.
    if any(number is None or number != 0 or np.signbit(number) for number in value):
        return None
    return tuple(map(tuple, paddings[1:3].tolist()))


def unpadded(call: Call) -> Call:
    """A call with explicit padding on images that have it already, on these images without it."""
    batch, *image, channels = call.input
    image = [None if n is None else n - sum(zeros) for n, zeros in zip(image, call.padding, strict=True)]
    return dataclasses.replace(call, input=(batch, *image, channels))


def _padded(call: Call) -> tuple:
    """The other way round: these images with it."""
    batch, *image, channels = call.input
    image = [None if n is None else n + sum(zeros) for n, zeros in zip(image, call.padding, strict=True)]
    return batch, *image, channels


def _alone(depthwise, kept) -> Chain:
    found = {}
    try:
        last = _follow_depthwise(depthwise, kept, found)
        found["behind"] = _behind(last, kept)
        call = _call(Chain(depthwise, **found))
        return Chain(
            depthwise, **found, call=call, behind_steps=_useful(found["behind"], last, call.pointwise_filter[2])
        )
    except Left as left:
        return Chain(depthwise, hindrance=str(left))


def _separable(depthwise, kept) -> Chain:
    found = {}
    try:
        _follow(depthwise, kept, found)
        call = _call(Chain(depthwise, **found))
        last = found.get("batch_to_space", depthwise)
        between = _steps(found["between"], last.outputs[0], call.pointwise_filter[2])
        if len(between) < len(found["between"]):
            raise Left(f"between the two convolutions stands {found['between'][len(between)].type}, no step of the op")
        behind = _useful(found["behind"], found["pointwise"], call.pointwise_filter[3])
        return Chain(depthwise, **found, call=call, between_steps=between, behind_steps=behind)
    except Left as left:
        return Chain(depthwise, **found, hindrance=str(left))


def _useful(operations, last, channels) -> tuple:
    """The steps behind an operation up to one that does something: somebody may know another by its name."""
    return useful(_steps(operations, last.outputs[0], channels))


def _follow_depthwise(depthwise, kept, found) -> tf.Operation:
    """Finds what deals the image out and puts it together again, and gives the last operation of these."""
    before = depthwise.inputs[0].op
    if before.type == "SpaceToBatchND":
        found["space_to_batch"] = before
        if _consumer(before, kept) is not depthwise:
            raise Left(f"{before.name} has other consumers")
    step = _consumer(depthwise, kept)
    if step is not None and step.type == "BatchToSpaceND":
        found["batch_to_space"] = step
    return found.get("batch_to_space", depthwise)


def _follow(depthwise, kept, found):
    last = _follow_depthwise(depthwise, kept, found)
    if not last.outputs[0].consumers():
        raise Left("no 1x1 convolution takes what it gives")
    found["between"] = ()
    while steps := _next(last, kept):
        found["between"] += steps
        last = steps[-1]
    step = _only_consumer(last, kept)
    if step.type != "Conv2D" or step.inputs[0].op is not last:
        raise Left("no 1x1 convolution takes what it gives")
    found["pointwise"] = step
    found["behind"] = _behind(step, kept)


def _behind(op, kept) -> tuple:
    behind = ()
    while steps := _next(op, kept):
        behind += steps
        op = steps[-1]
    return behind


def _next(op, kept) -> tuple:
    """The operations that take what this one gives, as far as they are one step; or none."""
    steps = _hard_swish(op, kept) or _swish(op, kept) or _step(op, kept)
    return () if any(map(_on_gpu, steps)) else steps


def _on_gpu(op) -> bool:
    return "GPU" in op.device.upper()


def _step(op, kept) -> tuple:
    """The one operation that takes what this one gives, if it may be a step; or none."""
    step = _consumer(op, kept)
    if step is None or step.type not in STEPS:
        return ()
    # A normalisation gives its statistics too.
    return () if any(output.consumers() or output.name in kept for output in step.outputs[1:]) else (step,)


def _steps(operations, image, channels) -> tuple:
    """Those of the op, from the first on."""
    steps, rest = [], list(operations)
    while rest and (found := steps_of(rest, image, channels)):
        steps += found
        image, rest = found[-1].op.outputs[0], rest[len(found) :]
    return tuple(steps)


def _hard_swish(op, kept) -> tuple:
    """The four operations that multiply what this one gives by relu6(it + 3) / 6, if just these take it; or none."""
    takers = [taker for output in op.outputs for taker in output.consumers()]
    if len(takers) != 2 or op._control_outputs or any(output.name in kept for output in op.outputs):
        return ()
    [*adds] = [taker for taker in takers if taker.type in ("Add", "AddV2")]
    if len(adds) != 1:
        return ()
    found = [adds[0]]
    while len(found) < 4 and (step := _consumer(found[-1], kept)) is not None:
        found.append(step)
    return tuple(found) if found[-1] in takers and is_hard_swish(found, op.outputs[0]) else ()


def _swish(op, kept) -> tuple:
    """The operations that multiply what this one gives by its sigmoid, if just these take it; or none."""
    found = swish(op.outputs[0])
    if not found:
        return ()
    inner = op, *found[:-1]
    tensors = [*(output for each in inner for output in each.outputs), *found[-1].outputs[1:]]
    takers = {taker for tensor in tensors for taker in tensor.consumers()}
    seen = any(tensor.name in kept for tensor in tensors) or any(each._control_outputs for each in inner)
    return found if takers <= set(found) and not seen else ()


def _consumer(op, kept):
    """The one operation that takes anything of this one, of which that is a single tensor; or None."""
    takers = [(taker, output) for output in op.outputs for taker in output.consumers()]
    if len(takers) != 1 or op._control_outputs or any(output.name in kept for output in op.outputs):
        return None
    return takers[0][0] if takers[0][1] is op.outputs[0] else None


def _only_consumer(op, kept):
    step = _consumer(op, kept)
    if step is None:
        raise Left(f"what {op.name} gives has other consumers")
    return step


def _call(chain: Chain) -> Call:
    depthwise, pointwise = chain.depthwise, chain.pointwise
    for op in chain.parts:
        if _on_gpu(op):
            raise Left(f"{op.name} is placed on a GPU")
    convolutions = [op for op in (depthwise, pointwise) if op is not None]
    for op in convolutions:
        if op.get_attr("data_format") != b"NHWC":
            raise Left(f"{op.name} has the data format {op.get_attr('data_format').decode()}")
        if set(op.get_attr("dilations")) != {1}:
            raise Left(f"{op.name} has dilations of its own, {list(op.get_attr('dilations'))}")
    if pointwise is not None:
        _check_pointwise(pointwise, depthwise is None)
    input, filters = chain.input, chain.filters
    if input.dtype not in _convolution.DTYPES:
        raise Left(f"the op does not take {input.dtype.name}")
    shapes = [_shape(tensor) for tensor in (input, *filters)]
    if depthwise is None:
        shapes.insert(1, (1, 1, shapes[0][3], 1))
    if pointwise is None and None not in shapes[1]:
        shapes.append((1, 1, shapes[1][2] * shapes[1][3], 0))
    elif pointwise is None:
        raise Left("the shape of the filter is unknown")
    if None in shapes[1] + shapes[2] or shapes[0][3] is None:
        raise Left("the shape of a filter, or the number of channels, is unknown")
    if 0 in shapes[0]:
        raise Left("the image is empty")
    if 0 in shapes[1] + shapes[2][:3] or pointwise is not None and shapes[2][3] == 0:
        raise Left("a filter is empty")
    if shapes[1][2] * shapes[1][3] != shapes[2][2]:
        raise Left(f"{pointwise.name} takes its channels in groups")
    strides = tuple(convolutions[0].get_attr("strides")[1:3])
    call = Call(*shapes, input.dtype, strides, "VALID", (1, 1))
    call = dataclasses.replace(call, **(_plain(chain) if chain.space_to_batch is None else _dilated(chain, call)))
    geometry = _library.geometry(call.request())
    if "error" in geometry:
        raise Left(geometry["error"])
    return call


def _shape(tensor) -> tuple:
    return tuple(tensor.shape.as_list()) if tensor.shape.rank == 4 else (None,) * 4


def _check_pointwise(op, alone) -> None:
    kernel, strides = _shape(op.inputs[1])[:2], list(op.get_attr("strides"))
    if kernel != (1, 1):
        raise Left(f"the filter of {op.name} is not known to be 1x1")
    if strides != [1, 1, 1, 1] and not alone:
        raise Left(f"{op.name} has strides, {strides}")
    if any(op.get_attr("explicit_paddings")):
        raise Left(f"{op.name} has padding")


def _plain(chain: Chain) -> dict:
    """Padding and rate where nothing is dilated."""
    if chain.batch_to_space is not None:
        raise Left("there is a BatchToSpaceND and no SpaceToBatchND")
    convolution = chain.depthwise or chain.pointwise
    padding = convolution.get_attr("padding").decode()
    if padding == "EXPLICIT":
        pairs = convolution.get_attr("explicit_paddings")
        padding = tuple(pairs[2:4]), tuple(pairs[4:6])
    return {"padding": padding}


def _dilated(chain: Chain, call: Call) -> dict:
    """Padding and rate where SpaceToBatchND deals the image out and BatchToSpaceND puts it together again."""
    if chain.batch_to_space is None:
        raise Left("there is a SpaceToBatchND and no BatchToSpaceND")
    if chain.depthwise.get_attr("padding") != b"VALID":
        raise Left(f"{chain.depthwise.name} pads what SpaceToBatchND has dealt out")
    rate, again = [tensor_util.constant_value(op.inputs[1]) for op in (chain.space_to_batch, chain.batch_to_space)]
    if rate is None or again is None or rate.tolist() != again.tolist() or len(rate) > 2:
        raise Left("the block shapes are not one pair of constants")
    rate = (*rate.tolist(), 1)[:2]
    call = dataclasses.replace(call, rate=rate)
    seen = _paddings(chain, call)
    # Those that TensorFlow's function computes, from the image's extents or by itself.
    (_, paddings, crops), *_ = seen
    explicit = tuple((before, after - crop) for (before, after), (_, crop) in zip(paddings, crops, strict=True))
    for padding in ("SAME", "VALID", explicit):
        candidate = dataclasses.replace(call, padding=padding)
        if all(_gives(candidate, *each) for each in seen):
            return {"padding": padding, "rate": rate}
    raise Left("SpaceToBatchND pads, or BatchToSpaceND crops, as tf.nn.separable_conv2d does not")


def _gives(call: Call, image, paddings, crops) -> bool:
    """Whether the geometry has these paddings and crops for an image of these extents."""
    example = dataclasses.replace(call, input=(call.input[0] or 1, *image, call.input[3]))
    geometry = _library.geometry(example.request())
    if "error" in geometry:  # an image that the kernel does not fit into tells nothing
        return not call.known
    return (geometry["paddings"], geometry["crops"]) == (paddings, crops)


def _paddings(chain: Chain, call: Call) -> list:
    """Heights and widths with the paddings and crops that the graph takes for them."""
    tensors = chain.space_to_batch.inputs[2], chain.batch_to_space.inputs[2]
    constants = [tensor_util.constant_value(tensor) for tensor in tensors]
    known, found = call.input[1:3], []
    if None not in known and not any(value is None for value in constants):
        return [(known, *[_pairs(value) for value in constants])]
    if not any(value is None for value in constants):
        paddings, crops = [_pairs(value) for value in constants]
        for image in zip(_HEIGHTS, _WIDTHS, strict=True):
            image = [extent if fixed is None else fixed for extent, fixed in zip(image, known, strict=True)]
            dealt = zip(image, paddings, call.rate, strict=True)
            image = [extent + -(extent + sum(zeros)) % r for extent, zeros, r in dealt]
            if all(fixed in (None, extent) for extent, fixed in zip(image, known, strict=True)):
                found.append((image, paddings, crops))
    else:
        part = _subgraphs.Subgraph(tensors, chain.input)
        if part.others:
            raise Left("how much is padded depends on more than the image's extents")
        run = part.function()
        channels = call.input[3]
        for image in zip(_HEIGHTS, _WIDTHS, strict=True):
            image = [extent if fixed is None else fixed for extent, fixed in zip(image, known, strict=True)]
            zeros = tf.zeros([call.input[0] or 1, *image, channels], call.dtype)
            found.append((image, *[_pairs(value.numpy()) for value in run(zeros)]))
    if not found:
        raise Left("SpaceToBatchND's paddings fit no image")
    return found


def _pairs(array) -> list:
    """Of height and width, where the array may be of the height alone."""
    return [*np.reshape(array, [-1, 2]).tolist(), [0, 0]][:2]
