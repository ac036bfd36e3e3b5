"""What the op computes, in any of its forms, as TensorFlow's own operations."""

import tensorflow as tf

from sepconv import _library, _numerics, _pipeline, _steps

# The scope of the operations.
NAME = "composite"


class UnknownCall(ValueError):
    """The op's strides, padding and rate cannot be told; the message is a phrase."""


def call_of(op) -> dict:
    """Its strides, rate and padding.

    Raises:
        UnknownCall: They are known only when it runs.
    """
    carrier = op.inputs[geometry_of(op)]
    if not carrier.shape.is_fully_defined():
        raise UnknownCall("its strides, padding and rate are known only when it runs")
    answer = _library.geometry({"carrier": carrier.shape.as_list()})
    if "error" in answer:
        raise UnknownCall(answer["error"])
    padding = answer["padding"]
    return {
        **{"strides": tuple(answer["strides"]), "rate": tuple(answer["rate"])},
        "padding": padding if isinstance(padding, str) else tuple(map(tuple, padding)),
    }


def geometry_of(op) -> int:
    """Which input has the geometry."""
    return 2 if op.type == _library.DEPTHWISE else 3


def steps_of(op) -> dict:
    """The steps behind its parts, in words, by the names of the parts that may have some."""
    parts = {_library.op_name(): (), _library.DEPTHWISE: ("depthwise",)}.get(op.type, ("depthwise", "pointwise"))
    return {part: op.get_attr(f"{part}_steps").decode() for part in parts}


def composite(op, steps: dict | None = None):
    """A function of the op's other inputs, which computes the same as TensorFlow's own operations.

    Args:
        op: An operation of a graph, or what stands for one while a gradient is asked for.
        steps: Its steps where they are `recognised`, if they are, whose numbers the function then takes.

    Raises:
        UnknownCall: What that is, is known only when it runs.
    """
    call, alone = call_of(op), op.type == _library.DEPTHWISE
    steps = steps_of(op) if steps is None else steps
    strides, padding, rate = [1, *call["strides"], 1], call["padding"], list(call["rate"])
    if not isinstance(padding, str):
        padding = [(0, 0), *padding, (0, 0)]
    # TensorFlow's operation may leave out products with zeros that it puts around an image itself.
    pads = not isinstance(padding, str) and rate == [1, 1] and _numerics.counts_zeros(op.get_attr("numerics").decode())

    def run(input, depthwise_filter, *others):
        image, zeros = (tf.pad(input, padding, name=f"{NAME}/padded"), "VALID") if pads else (input, padding)
        if not alone and not any(steps.values()):
            return _pipeline.separable_conv2d(image, depthwise_filter, *others, strides, zeros, None, rate, NAME)
        numbers = iter(others)
        with tf.name_scope(NAME):
            pointwise_filter = None if alone else next(numbers)
            image = _pipeline.depthwise_conv2d(image, depthwise_filter, strides, zeros, rate)
            image = _steps.in_tensorflow(steps["depthwise"], image, numbers)
            if not alone:
                image = tf.nn.conv2d(image, pointwise_filter, 1, "VALID")
                image = _steps.in_tensorflow(steps["pointwise"], image, numbers)
            return image

    return run
