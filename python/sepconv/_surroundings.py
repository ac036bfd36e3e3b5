"""What TensorFlow's optimiser may compute together with a chain: it multiplies constants into filters in front of them
and behind, across all that leaves numbers as they are, and puts sums and products together in an order of its own.
"""

import collections

import tensorflow as tf

from sepconv._subgraphs import constant, made_of, opaque

# Each puts many of the numbers that it takes together: nothing is moved across it, but into it.
_ENDS = {
    *(
        "AvgPool",
        "BatchMatMul",
        "BatchMatMulV2",
        "BatchMatMulV3",
        "Conv2D",
        "Conv3D",
        "DepthwiseConv2dNative",
        "MatMul",
    ),
    *("ConcatV2", "Max", "MaxPool", "Mean", "Prod", "ResizeBilinear", "ResizeNearestNeighbor", "Softmax", "Sum"),
}
# What takes images of the same extents, or numbers for them.
_ELEMENTWISE = {
    *("Add", "AddN", "AddV2", "BiasAdd", "Div", "DivNoNan", "Maximum", "Minimum", "Mul", "MulNoNan", "RealDiv", "Sub"),
    *("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "SquaredDifference"),
}
# Operations in each direction at most, nearest first: one move goes across few.
_MOST = 12
# Elements of a constant that a trial holds at most; no filter of a convolution has more.
_LARGE = 1 << 25


def surroundings(first: tuple, input: tf.Tensor, kept: set, others: list) -> tuple:
    """Some operations, those that take what they give, up to the first that ends all moves, and those that make what
    these and the first ones take besides.

    Args:
        first: The operations; what they give is what the last one gives.
        input: The tensor that they take, where the surroundings end.
        kept: Names of the tensors that somebody outside of the graph takes.
        others: Tuples of operations, all of which are part of the surroundings where the last of them is.

    Returns:
        A set of operations, and a list of the tensors that anybody else takes of them.
    """
    inside = dict.fromkeys(first)

    def spread(waiting, neighbours):
        waiting, most = collections.deque(waiting), len(inside) + _MOST
        while waiting and len(inside) < most:
            for op in neighbours(waiting.popleft()):
                made = None if op in inside else _made(op, inside, input)
                if made is not None:
                    inside.update(dict.fromkeys([*made, op]))
                    waiting += [op] if op.type not in _ENDS else []

    spread(first[-1:], _takers)
    spread([*inside], lambda op: _makers(op, input))
    for other in others:
        inside.update(dict.fromkeys(other if other[-1] in inside else ()))
    # Identities that lead out are nothing to the optimiser.
    for op in reversed([*inside]):
        if op.type == "Identity" and op not in first and inside.keys().isdisjoint(op.outputs[0].consumers()):
            del inside[op]
    # Of the first ones, others may stand for all but the last; what nobody takes is what the graph was made for.
    giving = [first[-1], *[op for op in inside if op not in first]]
    taken = [t for op in giving for t in op.outputs if t.name in kept or not inside.keys() >= set(t.consumers())]
    taken += [op.outputs[0] for op in giving if op.outputs and not any(t.consumers() for t in op.outputs)]
    return set(inside), [*{tensor.name: tensor for tensor in taken}.values()]


def _takers(op) -> list:
    """Those of what it gives, without what is multiplied by anything but constants: nothing is moved into that."""
    takers = [taker for output in op.outputs for taker in output.consumers()]
    mine = {output.name for output in op.outputs}
    return [
        taker
        for taker in takers
        if taker.type not in _ENDS or all(t.name in mine or constant(t.op) for t in taker.inputs)
    ]


def _makers(op, input) -> list:
    """Those of what it takes, where the optimiser may compute both as one."""
    if op.type not in _ELEMENTWISE:
        return []
    return [t.op for t in op.inputs if len(t.consumers()) == 1 and t.op is not input.op and not constant(t.op)]


def _made(op, inside, input) -> list | None:
    """What makes the shapes that an operation takes, if it can be part of a trial; or None."""
    if opaque(op) or op.type == "CheckNumerics" or op.type.startswith("Sepconv>"):
        return None
    if not all(_is_number(tensor) for tensor in (*op.inputs, *op.outputs)):
        return None
    made = {}
    for tensor in op.inputs:
        if tensor.op in inside or tensor is input:
            continue
        if constant(tensor.op):
            if (tensor.shape.num_elements() or 0) > _LARGE:
                return None
        elif not tensor.dtype.is_floating:
            of_shapes = made_of(tensor, inside, input)
            if of_shapes is None or len(made | of_shapes) > _MOST:
                return None
            made |= of_shapes
        elif not _known(tensor) and (op.type not in _ELEMENTWISE or (tensor.shape.rank or 0) > 4):
            return None
    return [*made]


def _is_number(tensor) -> bool:
    return tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool


def _known(tensor) -> bool:
    """Whether its extents are, but for the number of images."""
    return bool(tensor.shape.rank) and None not in tensor.shape.as_list()[1:]
