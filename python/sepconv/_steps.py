"""Which of TensorFlow's operations are steps that the op takes behind its two parts, in the op's words."""

import dataclasses
import itertools

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util

from sepconv import _normalisation

_WITH_NUMBERS = {"Add": "add", "AddV2": "add", "BiasAdd": "add", "Mul": "multiply"}
# A hard swish as it is written, and as TensorFlow's optimiser may make it of that: with other roundings.
_HARD_SWISHES = "hard_swish", "hard_swish_sixth_first"
# A swish by oneDNN and by Eigen.
_SWISHES = "swish_onednn", "swish"
# A ReLU, and as oneDNN fuses it with some sums: NaN becomes 0; or what is not positive is multiplied by 0, and so keeps
# its sign.
_RELUS = {"Relu": ("relu", "relu_onednn", "leaky_relu(0.0)"), "Relu6": ("relu6", "relu6_onednn")}
# How many tensors of numbers a word has.
_COUNTS = {"add": 1, "multiply": 1, "multiply_add": 2}


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """An operation of a chain.

    Attributes:
        op: The operation.
        word: What the op calls it, in one word or several; "" if it does nothing.
        operands: Which of its inputs its numbers are made of.
        numbers: The numbers, where the input holds one for all channels instead of one for each.
        others: What else the op may call it: how TensorFlow computes it depends on where it runs.
        form: Of a normalisation, which of the ways to compute it the words are.
    """

    op: tf.Operation
    word: str
    operands: tuple = ()
    numbers: np.ndarray | None = None
    others: tuple = ()
    form: _normalisation.Form | None = None

    def spellings(self) -> list:
        """The step in each of the words that may be its, first those that it has."""
        if self.form is not None:
            return [dataclasses.replace(self, word=form.words, form=form) for form in _normalisation.FORMS]
        return [dataclasses.replace(self, word=word) for word in (self.word, *self.others)]

    def inputs(self, edit) -> list:
        """How the op takes its numbers, in the graph that is edited."""
        if self.form is not None:
            return _normalisation.numbers(self.form, self.op, edit)
        if self.numbers is not None:
            return [edit.constant(f"{self.op.name}/numbers", self.numbers)]
        return [edit.by_name[self.op.name].input[operand] for operand in self.operands]

    def given(self) -> list:
        """The tensors that its numbers are made of; None for one that holds one number for all channels."""
        return [None if self.numbers is not None else self.op.inputs[operand] for operand in self.operands]


def steps_of(operations, image: tf.Tensor, channels: int) -> list:
    """The first of these operations, one after the other, as a step for an image of so many channels, or the first few
    as that which they are together; none if it is none."""
    if is_hard_swish(operations[:4], image):
        *first, last = operations[:4]
        return [*(Step(op, "") for op in first), Step(last, _HARD_SWISHES[0], others=_HARD_SWISHES[1:])]
    together = swish(image)
    if together and together == tuple(operations[: len(together)]):
        words, (*first, last) = _swish_words(image, channels), together
        return [*(Step(op, "") for op in first), Step(last, words[0], others=words[1:])] if words else []
    step = _step_of(operations[0], image, channels)
    return [] if step is None else [step]


def sure(steps: tuple) -> tuple:
    """Those in front of the first that TensorFlow may compute in a way of its own."""
    return useful(tuple(itertools.takewhile(lambda step: step.word not in _SWISHES, steps)))


def fewer(steps: tuple) -> list:
    """All of them, then ever fewer of the first ones, down to none: TensorFlow's optimiser may compute the last ones
    together with what is behind."""
    return [*dict.fromkeys(useful(steps[:count]) for count in range(len(steps), -1, -1))]


def useful(steps: tuple) -> tuple:
    """Those up to the last one that does something."""
    while steps and not steps[-1].word:
        steps = steps[:-1]
    return steps


def swish(image: tf.Tensor) -> tuple:
    """The operations that multiply an image by its sigmoid and take nothing else, in their order, if there are any.

    Keras multiplies by 1 before the sigmoid, and has a gradient of its own for the product: an IdentityN, which hands
    it on beside the image, and an Identity that nobody takes.
    """
    for first in image.consumers():
        scaled = (first,) if first.type == "Mul" and 1 in map(_number, first.inputs) else ()
        sigmoids = [taker for taker in (first.outputs[0].consumers() if scaled else [first]) if taker.type == "Sigmoid"]
        products = [taker for sigmoid in sigmoids for taker in sigmoid.outputs[0].consumers() if taker.type == "Mul"]
        if len(sigmoids) != 1 or len(products) != 1 or not any(input is image for input in products[0].inputs):
            continue
        product = products[0].outputs[0]
        takers = product.consumers()
        idle = [taker for taker in takers if taker.type == "Identity" and not taker.outputs[0].consumers()]
        [*handed] = [taker for taker in takers if taker.type == "IdentityN" and taker.inputs[0] is product]
        if len(handed) == 1 and not any(output.consumers() for output in handed[0].outputs[1:]):
            return *scaled, *sigmoids, *products, *idle, *handed
        return *scaled, *sigmoids, *products
    return ()


def _swish_words(image, channels) -> tuple:
    """Eigen computes the last elements of a tensor in another way, if they fill no register."""
    if image.dtype != tf.float32:
        return ()
    return _SWISHES if channels % 8 == 0 else _SWISHES[:1]


def is_hard_swish(operations, image: tf.Tensor) -> bool:
    """Whether these are image * (relu6(image + 3) / 6), as it is, or as a product with a sixth."""
    types = [op.type for op in operations]
    if len(types) != 4 or types[0] not in ("Add", "AddV2") or types[1] != "Relu6" or types[3] != "Mul":
        return False
    add, relu6, sixth, multiply = operations
    dtype = image.dtype.as_numpy_dtype
    divided = types[2] == "RealDiv" and sixth.inputs[0] is relu6.outputs[0] and _number(sixth.inputs[1]) == 6
    by_sixth = types[2] == "Mul" and dtype(1 / 6) in map(_number, sixth.inputs)
    inputs = list(add.inputs), list(multiply.inputs)
    takes_image = all(any(input is image for input in of_one) for of_one in inputs)
    takes_gate = any(input is sixth.outputs[0] for input in multiply.inputs)
    return takes_image and takes_gate and 3 in map(_number, add.inputs) and (divided or by_sixth)


def _number(tensor):
    """The one number of a constant; None if it is another tensor, or would give an image more dimensions."""
    if tensor.shape.num_elements() != 1 or tensor.shape.rank > 4:
        return None
    value = tensor_util.constant_value(tensor)
    return None if value is None else value.reshape(())[()]


def _step_of(op: tf.Operation, image: tf.Tensor, channels: int) -> Step | None:
    if _normalisation.is_step(op, image, channels):
        form = _normalisation.FORMS[0]
        return Step(op, form.words, (1, 2, 3, 4), form=form)
    if op.type in _RELUS:
        word, *others = _RELUS[op.type]
        return Step(op, word, others=tuple(others))
    if op.type == "Identity":
        return Step(op, "")
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
        return Step(op, word, (others[0],))
    value = _number(operand)
    return None if value is None else Step(op, word, (others[0],), np.full(channels, value))


def spellings(steps) -> list:
    """The steps in all combinations of their spellings, first that which they have."""
    return [*itertools.product(*[step.spellings() for step in steps])]


def words(steps) -> str:
    """As the op's attribute holds them."""
    return " ".join(step.word for step in steps if step.word)


def recognised(text: str, numbers: list, edit) -> tuple:
    """The steps of an attribute, whose numbers are the first of these inputs, each with its shape; their inputs; and
    the other ones. Steps that are a normalisation are one, `batch_normalisation(epsilon)`, with its operands."""
    words, found, inputs = text.split(), [], []
    while words:
        normalisation = _normalisation.recognised(words, [input for input, _ in numbers], edit)
        if normalisation is None:
            word = words.pop(0)
            found, count = [*found, word], _COUNTS.get(word, 0)
            inputs += numbers[:count]
        else:
            form, epsilon, operands = normalisation
            found, count = [*found, f"batch_normalisation({epsilon!r})"], len(form.numbers)
            inputs += [(operand, numbers[0][1]) for operand in operands]
            words = words[len(form.words.split()) :]
        numbers = numbers[count:]
    return " ".join(found), inputs, numbers


def in_tensorflow(text: str, image: tf.Tensor, numbers) -> tf.Tensor:
    """The steps of an attribute, as TensorFlow's own operations, or those that are `recognised`; `numbers` is an
    iterator of tensors."""
    for word in text.split():
        if word == "add":
            image = image + next(numbers)
        elif word == "multiply":
            image = image * next(numbers)
        elif word == "multiply_add":
            # Rounded twice: TensorFlow has no operation that always rounds once.
            image = image * next(numbers) + next(numbers)
        elif word in _RELUS["Relu"][:2]:
            image = tf.nn.relu(image)
        elif word in _RELUS["Relu6"]:
            image = tf.nn.relu6(image)
        elif word == "hard_swish":
            image = image * (tf.nn.relu6(image + 3) * (1 / 6))
        elif word == "hard_swish_sixth_first":
            image = (image * (1 / 6)) * tf.nn.relu6(image + 3)
        elif word in _SWISHES:
            image = image * tf.sigmoid(image)
        elif word.startswith("batch_normalisation("):
            epsilon = float(word.removeprefix("batch_normalisation(").removesuffix(")"))
            operands = {operand: next(numbers) for operand in _normalisation.OPERANDS}
            image = tf.raw_ops.FusedBatchNormV3(x=image, **operands, epsilon=epsilon, is_training=False).y
        else:
            image = tf.nn.leaky_relu(image, float(word.removeprefix("leaky_relu(").removesuffix(")")))
    return image
