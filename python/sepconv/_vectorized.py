"""The op under `tf.vectorized_map`: images of all iterations become one batch, wherever that changes no bit."""

import functools

import tensorflow as tf
from tensorflow.python.ops.parallel_for import pfor

from sepconv import _gradients, _library

# Words of numerics under which an element's bits depend on where in the batch its pixel lies, or on how many there are
# (crates/sepconv/src/numerics.rs, orders.rs).
_OF_THE_BATCH = b"rows", b"overrun"


@pfor.RegisterPFor("Sepconv>SeparableConv2D")
def _convert(pfor_input):
    tensors, stacked = zip(*[(tensor, is_stacked) for tensor, is_stacked, _ in pfor_input.inputs], strict=True)
    numerics, constant = pfor_input.get_attr("numerics"), pfor_input.get_attr("constant_filters")

    def convolve(*tensors):
        return _library.op()(*tensors, numerics=numerics, constant_filters=constant and not any(stacked[1:]))

    if stacked == (True, False, False, False) and not any(word in numerics for word in _OF_THE_BATCH):
        images, *others = tensors
        shape = tf.shape(images)
        batch = convolve(tf.reshape(images, tf.concat([[shape[0] * shape[1]], shape[2:]], 0)), *others)
        output = tf.reshape(batch, tf.concat([shape[:2], tf.shape(batch)[1:]], 0))
    else:
        output = _one_by_one(pfor_input, convolve)
    return pfor.wrap(output, True)


def _one_by_one(pfor_input, function):
    def call(iteration):
        return function(*[tensor[iteration] if stacked else tensor for tensor, stacked, _ in pfor_input.inputs])

    iterations = tf.range(pfor_input.pfor.loop_len_vector[0])
    return tf.map_fn(call, iterations, fn_output_signature=pfor_input.outputs[0].dtype)


def _register_gradient(name: str) -> None:
    @pfor.RegisterPFor(_library.op_name(name))
    def _convert(pfor_input):
        function = functools.partial(_library.op(name), numerics=pfor_input.get_attr("numerics"))
        return pfor.wrap(_one_by_one(pfor_input, function), True)


for _name in _gradients.INPUTS:
    _register_gradient(_name)
