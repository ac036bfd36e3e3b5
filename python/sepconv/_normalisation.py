"""Batch normalisation by statistics that are given, TensorFlow's FusedBatchNorm, as steps of the op, and back.

TensorFlow has several ways of computing it, each with bits of its own. Which one it takes depends on its build, on what
stands around the operation, on the number of channels and on which operands are constants: here are all of them. What
the steps add and multiply by, operations in front of them compute from the operands, wherever these come from; they
tell afterwards what the steps were.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util

OPERANDS = ("scale", "offset", "mean", "variance")


@dataclasses.dataclass(frozen=True)
class Form:
    """One of the ways.

    Attributes:
        words: The steps.
        numbers: What each of their numbers is: an operand, or the type of an operation with what that takes.
    """

    words: str
    numbers: tuple


_MINUS_MEAN = ("Neg", "mean")
_RAISED = ("AddV2", "variance", "epsilon")
# Quotients of another type become products with Rsqrt, which rounds otherwise, in TensorFlow's optimiser.
_INVERSE = ("DivNoNan", "one", ("Sqrt", _RAISED))
# Operands stand the other way round than in `tf.nn.batch_normalization` and in Keras, which are no FusedBatchNorm.
_FACTOR = ("Mul", "scale", ("Rsqrt", _RAISED))

FORMS = (
    # oneDNN's, where the channels fill vectors;
    Form("add multiply multiply_add", (_MINUS_MEAN, _INVERSE, "scale", "offset")),
    # and where they do not;
    Form("add multiply add", (_MINUS_MEAN, ("DivNoNan", "scale", ("Sqrt", _RAISED)), "offset")),
    # and where it is fused with a convolution.
    Form("add multiply multiply add", (_MINUS_MEAN, ("Rsqrt", _RAISED), "scale", "offset")),
    # TensorFlow's own.
    Form("add multiply add", (_MINUS_MEAN, _FACTOR, "offset")),
    # TensorFlow's optimiser takes it apart where all operands are constants.
    Form("multiply add", (_FACTOR, ("AddV2", "offset", ("Mul", _MINUS_MEAN, _FACTOR)))),
)


def is_step(op: tf.Operation, image: tf.Tensor, channels: int) -> bool:
    """Whether an operation is a normalisation of an image of so many channels that the forms hold for."""
    return (
        op.type in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
        and op.inputs[0] is image
        and image.dtype == tf.float32
        and not op.get_attr("is_training")
        and op.get_attr("data_format") == b"NHWC"
        and all(operand.shape == [channels] for operand in op.inputs[1:5])
    )


def numbers(form: Form, op: tf.Operation, edit) -> list:
    """The numbers of a form's steps: adds what computes them to the graph that is edited, and gives how inputs take
    them."""
    name = f"{op.name}/numbers"
    made = dict(zip(OPERANDS, edit.by_name[op.name].input[1:5], strict=True))

    def make(number) -> str:
        if number not in made:
            if number in ("one", "epsilon"):
                value = 1.0 if number == "one" else op.get_attr("epsilon")
                made[number] = edit.constant(name, np.float32(value))
            else:
                type, *inputs = number
                node = edit.new(name, type, [*map(make, inputs)])
                node.attr["T"].type = tf.float32.as_datatype_enum
                made[number] = edit.tensor(node.name, "y" if len(inputs) == 1 else "z")
        return made[number]

    return [*map(make, form.numbers)]


def recognised(words: list, inputs: list, edit) -> tuple | None:
    """The form that some steps begin with, whose numbers these inputs take, with epsilon and how inputs take the
    operands; None if there is none."""
    for form in FORMS:
        of_form, found = form.words.split(), {}
        if words[: len(of_form)] != of_form or len(inputs) < len(form.numbers):
            continue
        if all(_is(*pair, edit, found) for pair in zip(form.numbers, inputs, strict=False)):
            return form, found["epsilon"], [found[operand] for operand in OPERANDS]
    return None


def _is(number, input: str, edit, found: dict) -> bool:
    """Whether an input takes what a form says that its number is; each operand is the same throughout."""
    node = edit.node(input)
    if number in OPERANDS:
        return found.setdefault(number, input) == input
    if number in ("one", "epsilon"):
        if node is None or node.op != "Const":
            return False
        value = tensor_util.MakeNdarray(node.attr["value"].tensor).item()
        return found.setdefault(number, value) == (1 if number == "one" else value)
    type, *inputs = number
    if node is None or node.op != type:
        return False
    return all(_is(*pair, edit, found) for pair in zip(inputs, node.input, strict=False))
