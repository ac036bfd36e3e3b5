"""TensorFlow's two parts in the context of a graph: filters that are constants or not, and a bias that its optimiser
fuses with the product; each kind of filters in a process where nothing else ran.

With oneDNN, what a function returns depends on what ran before on its thread, so a context is asked in a child process
that only ever runs functions with filters of that kind. It lives until its parent ends.
"""

import atexit
import contextlib
import dataclasses
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import tensorflow as tf

from sepconv import _probes

_lock = threading.Lock()
_children: dict = {}


@dataclasses.dataclass(frozen=True)
class Context:
    """Called with a call and its geometry, it is their probe.

    Attributes:
        constant: Whether the depthwise and the pointwise filter are constants of the graph.
        bias: Whether a bias is added to the product.
    """

    constant: tuple = (True, True)
    bias: bool = False

    def __call__(self, call, geometry):
        return _Probe(self, call, geometry)

    def run(self, graph: bytes, feeds: list, fetches: list) -> list:
        """Tensors of a serialized graph, as a function of the child process gives them, for each of several
        dictionaries of what is fed."""
        return _ask(self.constant, "graph", graph, feeds, fetches)


class _Probe:
    """The child process, as a probe."""

    def __init__(self, context, call, geometry):
        self.context, self.call, self.geometry = context, call, geometry

    def depthwise(self, input, filter):
        constant = self.context.constant
        arguments = constant[0], self.call, self.geometry, np.array(input), np.array(filter)
        return _ask(constant, "depthwise", *arguments)

    def pointwise(self, pixels, filter):
        constant, bias = self.context.constant, self.context.bias
        arguments = constant[1], bias, self.call, np.array(pixels), np.array(filter)
        return _ask(constant, "pointwise", *arguments)


def _ask(kind, *question):
    with _lock:
        child = _children.get(kind)
        if child is None or child.poll() is not None:
            threads = str(tf.config.threading.get_intra_op_parallelism_threads())
            command = [sys.executable, "-m", "sepconv._context", threads]
            environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
            child = _children[kind] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
            atexit.register(child.kill)
        try:
            pickle.dump(question, child.stdin)
            child.stdin.flush()
            ok, answer = pickle.load(child.stdout)
        except (OSError, EOFError) as error:
            status = child.wait()
            del _children[kind]
            raise RuntimeError(f"the process that reveals the context ended with status {status}") from error
        except BaseException:  # an interrupt: its answer would be taken for the next one's
            del _children[kind]
            with contextlib.suppress(OSError), child:  # which closes the pipes, and waits
                child.kill()
            raise
    if not ok:
        raise RuntimeError(answer)
    return answer


def _depthwise(constant, call, geometry, input, filter):
    def part(input, filter):
        return _probes.depthwise(_raw, call, geometry, input, filter)

    return _traced(part, constant, filter)(input)


def _pointwise(constant, bias, call, pixels, filter):
    # An argument, for a constant would be optimised away; and -0, which leaves every number as it is.
    zeros = [-tf.zeros(filter.shape[3:], call.dtype)] if bias else []

    def part(pixels, filter, *zeros):
        output = _probes._convolution(_raw, "Conv2D", call, pixels, filter)
        return tf.raw_ops.BiasAdd(value=output, bias=zeros[0]) if zeros else output

    return _traced(part, constant, filter, *zeros)(pixels)


def _traced(part, constant, filter, *others):
    if constant:
        function = tf.function(lambda input, *others: part(input, filter, *others))
        return lambda input: function(tf.constant(input), *others).numpy()
    function = tf.function(part)
    return lambda input: function(tf.constant(input), tf.constant(filter), *others).numpy()


def _raw(name, inputs, attributes):
    """The op of that name in the graph being built."""
    given = dict(zip(attributes[::2], attributes[1::2], strict=True))
    names = {"SpaceToBatchND": ("block_shape", "paddings"), "BatchToSpaceND": ("block_shape", "crops")}
    arguments = dict(zip(("input", *names.get(name, ("filter",))), inputs, strict=True))
    keep = ("strides", "padding", "explicit_paddings", "data_format", "dilations")
    return getattr(tf.raw_ops, name)(**arguments, **{key: given[key] for key in keep if key in given})


def _graph(graph, feeds, fetches):
    definition = tf.compat.v1.GraphDef.FromString(graph)
    imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    tensor = imported.graph.get_tensor_by_name
    function = imported.prune([tensor(f"{name}:0") for name in feeds[0]], [*map(tensor, fetches)])
    return [result.numpy() for given in feeds for result in function(*map(tf.constant, given.values()))]


_ANSWERS = {"depthwise": _depthwise, "pointwise": _pointwise, "graph": _graph}


def _serve():
    # Nothing but answers may reach the pipe, whatever a library prints.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
    while True:
        try:
            part, *question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = True, _ANSWERS[part](*question)
        except Exception as error:  # whatever TensorFlow raises is the answer
            answer = False, f"{type(error).__name__}: {error}"
        pickle.dump(answer, pipe)
        pipe.flush()


if __name__ == "__main__":
    _serve()
