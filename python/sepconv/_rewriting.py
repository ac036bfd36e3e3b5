"""`rewrite` and `restore`: models with the op in the place of TensorFlow's operations, and back."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.eager import context

from sepconv import _chains, _convolution, _files, _functions, _restoring
from sepconv._bodies import BadModel, Body, bodies, count_of
from sepconv._chains import Left
from sepconv._places import Places
from sepconv._report import Layer, Report
from sepconv._takeover import takeover

ConcreteFunction = tf.types.experimental.ConcreteFunction
Model = tf.compat.v1.GraphDef | ConcreteFunction | str | pathlib.Path


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """What `rewrite` and `restore` return.

    Attributes:
        model: A model of the kind that was given: a GraphDef, a function, or the path that was written.
        report: A `Report`: what was replaced, what was left, and why.
    """

    model: Model
    report: Report


def rewrite(
    model: Model,
    output: str | pathlib.Path | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Rewritten:
    """Replaces the separable convolutions of a model, and the 1x1 ones, by the op, where that changes no bit of what
    it computes.

    They are found in the graph and in all of its functions, whatever made them: depthwise convolutions, dilated or not,
    that a 1x1 convolution follows; and either of these by itself, with the steps behind it. Names, signatures,
    variables and assets stay. The bits are those that TensorFlow gives in the model's own context, in a fresh process
    with as many threads as this one: whether filters are constants, and what is fused with them, matters there. Each
    layer is tried on random numbers in such a process, and left where a bit differs.

    Args:
        model: A `GraphDef`, of which only tensors that no node takes are sure to stay; a concrete function
            (`tf.function(...).get_concrete_function(...)`), whose variables the new one shares; or the path of a
            SavedModel's folder or of a file that holds a GraphDef.
        output: Where the result is written; for a path only, and needed there.
        overwrite: Whether `output` may be a model already, which is replaced then, or is `model` itself.
        progress: Called with a count, the sum and a node's name, after each convolution that was looked at.

    Returns:
        A `Rewritten`, with the new `model` and the `report`; what was given stays as it is.

    Raises:
        sepconv.BadModel: What was given cannot be read, or the output not written. Nothing half-written stays.

    Example:
        >>> rewritten = sepconv.rewrite("model", "model_with_sepconv")
        >>> print(rewritten.report)
        >>> function = sepconv.rewrite(function).model
    """
    return _transform(model, output, overwrite, progress, {"DepthwiseConv2dNative", "Conv2D"}, _rewriter)


def restore(
    model: Model,
    output: str | pathlib.Path | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Rewritten:
    """Puts TensorFlow's own operations in the place of the op, in any model that holds it: for exporters that know no
    others.

    Args, Returns, Raises: As for `rewrite`. What that replaced is there again, node by node, but for scales that
        TensorFlow multiplies into a filter: they stay in it. The bits are those that TensorFlow gives wherever the new
        model runs: the same if that is what the op's numerics were revealed from.

    Example:
        >>> sepconv.restore("model_with_sepconv", "model")
    """
    return _transform(model, output, overwrite, progress, _restoring.TYPES, lambda *_: _restoring.restore_body)


def _transform(model, output, overwrite, progress, types, changer) -> Rewritten:
    def changed(definition, kept=()) -> tuple:
        already = count_of(definition, _restoring.TYPES - types)
        found, change = bodies(definition, types, kept), changer(definition, kept)
        total = sum(node.op in types for body in found for node in body.nodes)
        done = []

        def step(node):
            done.append(node)
            if progress is not None:
                progress(len(done), total, node)

        layers, functions = [], set()
        for body in found:
            layers_here = change(body, step)
            layers += layers_here
            if body.function and any(layer.replaced for layer in layers_here):
                functions.add(body.function)
        return Report(tuple(layers), already), functions

    _convolution.use_threads()  # for a model that runs in this process
    with context.eager_mode():
        return _transformed(model, output, overwrite, changed)


def _transformed(model, output, overwrite, changed) -> Rewritten:
    if isinstance(model, (str, pathlib.Path)):
        if output is None:
            raise TypeError("output must say where the result is written")
        return Rewritten(output, _files.transform(pathlib.Path(model), pathlib.Path(output), overwrite, changed))
    if output is not None:
        raise TypeError("output is for a model that is given by its path")
    if isinstance(model, tf.compat.v1.GraphDef):
        definition = tf.compat.v1.GraphDef.FromString(model.SerializeToString())
        report, functions = changed(definition)
        _functions.give_new_names(definition, functions)
        return Rewritten(definition, report)
    if isinstance(model, ConcreteFunction):
        definition = _functions.library_of(model)
        report, _ = changed(definition)
        return Rewritten(_functions.like(model, definition), report)
    raise TypeError(
        f"model must be a GraphDef, a concrete function or a path, got {type(model).__name__}; {_files.EXPORTED}, "
        "or traced: tf.function(model).get_concrete_function(tf.TensorSpec(...))"
    )


def _rewriter(definition, kept):
    return functools.partial(_rewrite_body, Places(definition, kept))


def _rewrite_body(places: Places, body: Body, progress) -> list:
    layers, here, hindrance = [], [], None
    if not any(node.op == "DepthwiseConv2dNative" for node in body.nodes):
        try:
            _ = body.graph
        except BadModel:  # of a graph that holds no such layer, nobody has to know all operations
            return []
    edit = body.edit()
    if body.compiled:
        hindrance = "the function is compiled by XLA (jit_compile=True), which has no kernel of the op"
    else:
        try:
            here = places.of(body)
        except Left as left:
            hindrance = str(left)
    kept, done, left = set(body.kept), [], {}

    def rewrite_each(type, chain_of):
        for op in [op for op in body.graph.get_operations() if op.type == type]:
            chain = None if any(op in found.chain.parts for found in done) else chain_of(op, kept)
            if chain is not None:
                if hindrance is not None:
                    chain = dataclasses.replace(chain, hindrance=hindrance, alone=None)
                layer = _rewrite_chain(chain, edit, body.function, here, kept, done)
                # Of a layer that was left, the 1x1 convolution may still be replaced.
                if layer.replaced and op.name in left:
                    place, depthwise = left[op.name]
                    layers[place] = dataclasses.replace(layers[place], node=depthwise)
                if layer.replaced or op.name not in left:
                    layers.append(layer)
                if not layer.replaced and None not in (chain.depthwise, chain.pointwise):
                    left[chain.pointwise.name] = len(layers) - 1, chain.depthwise.name
            progress(op.name)

    rewrite_each("DepthwiseConv2dNative", _chains.of_depthwise)
    rewrite_each("Conv2D", _chains.of_pointwise)
    return layers


def _rewrite_chain(chain, edit, function, places, kept, done) -> Layer:
    described = {"node": (chain.pointwise or chain.depthwise).name, "function": function}
    try:
        found = takeover(chain, places, done)
    except Left as left:
        if chain.alone is not None:
            return _rewrite_chain(chain.alone, edit, function, places, kept, done)
        return Layer(replaced=False, reason=str(left), **described, **_of(chain))
    found.apply(edit)
    # What the op takes is no step of another chain any more.
    kept.update(tensor.name for tensor in found.given if tensor is not None)
    done.append(found)
    words = {"numerics": found.numerics, **found.words}
    return Layer(replaced=True, reason=found.reason, **words, **described, **_of(found.chain))


def _of(chain) -> dict:
    """What it computes, by the names of `Layer`."""
    if chain.call is None:
        return {}
    call = {field.name: getattr(chain.call, field.name) for field in dataclasses.fields(chain.call)}
    for part in ("depthwise", "pointwise"):
        if getattr(chain, part) is None:
            call[f"{part}_filter"] = None
    return {**call, "dtype": chain.call.dtype.name, "exact": chain.call.known}
