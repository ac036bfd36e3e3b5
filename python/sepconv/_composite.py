"""What the op computes, in any of its forms, as TensorFlow's own operations."""

import tensorflow as tf

from sepconv import _library, _numerics, _pipeline, _steps

# The scope of the operations.
NAME = "composite"

_ALONE = {_library.DEPTHWISE: ("depthwise",), _library.POINTWISE: ("pointwise",)}


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


def parts_of(op) -> tuple:
    """Which of the two parts it computes."""
    return _ALONE.get(op.type, ("depthwise", "pointwise"))


def geometry_of(op) -> int:
    """Which input has the geometry: the one behind the filters of its parts."""
    return 1 + len(parts_of(op))


def steps_of(op) -> dict:
    """The steps behind its parts, in words, by the names of the parts that may have some."""
    parts = () if op.type == _library.op_name() else parts_of(op)
    return {part: op.get_attr(f"{part}_steps").decode() for part in parts}


def composite(op, steps: dict | None = None):
    """A function of the op's other inputs, which computes the same as TensorFlow's own operations.

    Args:
        op: An operation of a graph, or what stands for one while a gradient is asked for.
        steps: Its steps where they are `recognised`, if they are, whose numbers the function then takes.

    Raises:
        UnknownCall: What that is, is known only when it runs.
    """
    call, parts = call_of(op), parts_of(op)
    steps = steps_of(op) if steps is None else steps
    strides, padding, rate = [1, *call["strides"], 1], call["padding"], list(call["rate"])
    if not isinstance(padding, str):
        padding = [(0, 0), *padding, (0, 0)]
    # TensorFlow's operation may leave out products with zeros that it puts around an image itself.
    pads = not isinstance(padding, str) and rate == [1, 1] and _numerics.counts_zeros(op.get_attr("numerics").decode())

    def run(input, *others):
        image, zeros = (tf.pad(input, padding, name=f"{NAME}/padded"), "VALID") if pads else (input, padding)
        if len(parts) == 2 and not any(steps.values()):
            return _pipeline.separable_conv2d(image, *others, strides, zeros, None, rate, NAME)
        filters, numbers = dict(zip(parts, others, strict=False)), iter(others[len(parts) :])
        attributes = strides, zeros, rate
        with tf.name_scope(NAME):
            for part, filter in filters.items():
                image = _pipeline.PARTS[part](image, filter, *attributes)
                image = _steps.in_tensorflow(steps[part], image, numbers)
                attributes = [1, 1, 1, 1], "VALID", [1, 1]
            return image

    return run
