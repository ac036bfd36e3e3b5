"""Which of TensorFlow's operations are steps that the op takes behind its two parts, in the op's words."""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util

_WITH_NUMBERS = {"Add": "add", "AddV2": "add", "BiasAdd": "add", "Mul": "multiply"}
_WITHOUT = {"Identity": "", "Relu": "relu", "Relu6": "relu6"}


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """An operation of a chain.

    Attributes:
        op: The operation.
        word: What the op calls it; "" if it does nothing.
        operand: Which of its inputs has the numbers, one for each channel; None without numbers.
        numbers: The numbers themselves, where the input holds one for all channels.
    """

    op: tf.Operation
    word: str
    operand: int | None = None
    numbers: np.ndarray | None = None


def step_of(op: tf.Operation, image: tf.Tensor, channels: int) -> Step | None:
    """The step that an operation is for an image of so many channels; None if it is none."""
    if op.type in _WITHOUT:
        return Step(op, _WITHOUT[op.type])
    if op.type == "LeakyRelu":
        return Step(op, f"leaky_relu({op.get_attr('alpha')!r})")
    if op.type not in _WITH_NUMBERS or op.type == "BiasAdd" and op.get_attr("data_format") != b"NHWC":
        return None
    [*others] = [n for n, input in enumerate(op.inputs) if input is not image]
    if len(others) != 1:
        return None
    word, operand = _WITH_NUMBERS[op.type], op.inputs[others[0]]
    shape = operand.shape
    if shape.rank is None or shape.rank > 4:
        return None
    if shape.as_list() == [1] * (shape.rank - 1) + [channels] and shape.rank:
        return Step(op, word, others[0])
    value = tensor_util.constant_value(operand)
    if shape.num_elements() == 1 and value is not None:
        return Step(op, word, others[0], np.full(channels, value.reshape(()), value.dtype))
    return None


def words(steps) -> str:
    """As the op's attribute holds them."""
    return " ".join(step.word for step in steps if step.word)


def in_tensorflow(text: str, image: tf.Tensor, numbers) -> tf.Tensor:
    """The steps of an attribute, as TensorFlow's own operations; `numbers` is an iterator of tensors."""
    for word in text.split():
        if word == "add":
            image = image + next(numbers)
        elif word == "multiply":
            image = image * next(numbers)
        elif word == "relu":
            image = tf.nn.relu(image)
        elif word == "relu6":
            image = tf.nn.relu6(image)
        elif word == "hard_swish":
            image = image * (tf.nn.relu6(image + 3) * (1 / 6))
        else:
            image = tf.nn.leaky_relu(image, float(word.removeprefix("leaky_relu(").removesuffix(")")))
    return image
