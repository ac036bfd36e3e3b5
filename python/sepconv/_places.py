"""Where the bodies of a model run, as TensorFlow's optimiser sees it: functions stand in the place of their calls."""

import dataclasses
import functools
import hashlib
import itertools

import tensorflow as tf

from sepconv._bodies import BadModel, Body, read
from sepconv._chains import Left
from sepconv._subgraphs import opaque

_CALLS = "PartitionedCall", "StatefulPartitionedCall"
# More are not looked at.
_MOST = 33


@dataclasses.dataclass(frozen=True)
class Place:
    """A graph that a body is part of, where its operations have the same names as in the body.

    Attributes:
        graph: The graph.
        kept: Names of the tensors that are taken from outside.
    """

    graph: tf.Graph
    kept: set

    @functools.cached_property
    def twins(self) -> set:
        """Names of the operations that compute what another one computes as well: TensorFlow's optimiser leaves one."""
        digests, found = {}, {}
        for op in self.graph.get_operations():
            hashed = hashlib.sha256(op.type.encode())
            if opaque(op):
                hashed.update(op.name.encode())
            for key in sorted(op.node_def.attr):
                if not key.startswith("_"):
                    hashed.update(key.encode() + op.node_def.attr[key].SerializeToString(deterministic=True))
            for tensor in op.inputs:  # in a loop, some come later
                hashed.update(digests.get(tensor.op, tensor.op.name.encode()) + str(tensor.value_index).encode())
            digests[op] = hashed.digest()
            found.setdefault(digests[op], []).append(op.name)
        return {name for names in found.values() if len(names) > 1 for name in names}


class Places:
    """Those of a model's bodies."""

    def __init__(self, definition, kept=()):
        self._definition = definition
        self._bodies = {function.signature.name: Body(definition, function) for function in definition.library.function}
        self._bodies[""] = Body(definition, None, kept)

    def of(self, body: Body) -> list:
        """By itself, and at the end of each way of calls that leads there.

        Raises:
            Left: They cannot be looked at.
        """
        ways = [*itertools.islice(self._ways(body.function), _MOST + 1)]
        if len(ways) > _MOST:
            raise Left(f"the function is called in more than {_MOST - 1} ways")
        try:
            return [self._place(*way) for way in ways]
        except BadModel as error:
            raise Left(f"where the function is called: {error}") from error

    @functools.cached_property
    def calls(self) -> dict:
        """Of each body the functions that are put in the place of their calls, by the calls' names."""
        return {name: dict(self._called(body)) for name, body in self._bodies.items()}

    def _called(self, body):
        for node in body.nodes:
            name = node.attr["f"].func.name if node.op in _CALLS else node.op
            if name and name in self._bodies and not self._bodies[name].stays:
                yield node.name, name

    def _ways(self, name, below=()):
        """Names of bodies, and of the calls that lead from there to one."""
        yield name, ()
        for caller, calls in self.calls.items():
            for call, called in calls.items():
                if called == name and caller not in below:
                    for root, way in self._ways(caller, (*below, name)):
                        yield root, (*way, call)

    def _place(self, root, way) -> Place:
        body = self._bodies[root]
        if not self.calls[root]:
            return Place(body.graph, body.kept)
        definition = tf.compat.v1.GraphDef(library=self._definition.library, versions=self._definition.versions)
        part = _Part(self, root, way, itertools.count())
        part.write(definition)
        return Place(read(definition), set(map(part.tensor, body.kept)))

    def flat(self, name) -> tuple:
        """The nodes of a body as those of a graph, and the names of its arguments and of what it returns."""
        graph = self._bodies[name].graph
        inputs, outputs = (graph.inputs, graph.outputs) if name else ((), ())
        return graph.as_graph_def(add_shapes=True).node, [t.op.name for t in inputs], [t.name for t in outputs]


class _Part:
    """The nodes of a body, as they are put into a graph; all but those at the end of the way with other names."""

    def __init__(self, places, name, way, numbers, call=None, caller=None):
        self._call, self._caller = call, caller
        self._prefix = "" if way == () else f"sepconv_place_{next(numbers)}/"
        self._nodes, self._arguments, self._returned = places.flat(name)
        self._parts = {}
        for node in self._nodes:
            if called := places.calls[name].get(node.name):
                on = way[1:] if way and way[0] == node.name else None
                self._parts[node.name] = _Part(places, called, on, numbers, node, self)

    def tensor(self, name: str) -> str:
        """What a tensor of the body is called in the graph."""
        node, _, n = name.partition(":")
        if node in self._parts:
            part = self._parts[node]
            return part.tensor(part._returned[int(n or 0)])
        if self._call is not None and node in self._arguments:
            return self._caller.tensor(self._call.input[self._arguments.index(node)])
        return f"{self._prefix}{node}:{n or 0}"

    def write(self, definition) -> None:
        for node in self._nodes:
            if node.name in self._parts:
                self._parts[node.name].write(definition)
            elif self._call is None or node.name not in self._arguments:
                new = definition.node.add()
                new.CopyFrom(node)
                new.name, new.device = self._prefix + node.name, ""
                new.attr.pop("_class", None)
                # What only has to run before is nothing to a trial.
                new.input[:] = [self.tensor(input) for input in node.input if input[0] != "^"]
