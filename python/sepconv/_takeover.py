"""How the op takes the place of a chain without changing a bit there.

The order of sums is revealed in the chain's own context: for filters of its kind, constants or not, and with the bias
behind it, in a process of its own. Then the chain, with what TensorFlow's optimiser may fuse with it, runs there on
random numbers, cut out of the model: once as it is, once with the op. Where a single bit differs, the chain is left.
"""

import collections
import dataclasses
import functools
import itertools

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context as eager
from tensorflow.python.framework import tensor_util

from sepconv import _bits, _library, _numerics, _orders, _originals, _steps
from sepconv._arguments import Call
from sepconv._bodies import Edit
from sepconv._chains import Chain, Left, unpadded
from sepconv._command import one_line
from sepconv._context import Context
from sepconv._subgraphs import Subgraph, constant, stays
from sepconv._surroundings import surroundings

_ADDITIONS = "Add", "AddV2", "BiasAdd"


@dataclasses.dataclass(frozen=True)
class Takeover:
    """What stands for a chain.

    Attributes:
        chain: The chain.
        scales: Steps behind the chain that the op stands for too: they multiply by constants, which TensorFlow's
            optimiser multiplies into a constant filter.
        scaled_filter: The pointwise filter, multiplied with them.
        between: What is between the two convolutions, step by step.
        steps: What is behind these that the op stands for, likewise.
        numerics: The text of the order of sums.
        reason: Why that one, in a sentence.
    """

    chain: Chain
    scales: tuple = ()
    scaled_filter: np.ndarray | None = None
    between: tuple = ()
    steps: tuple = ()
    numerics: str = ""
    reason: str = ""

    @property
    def rest(self) -> tuple:
        """What is behind the convolutions and the scales."""
        return self.chain.behind[len(self.scales) :]

    @property
    def operations(self) -> tuple:
        """Those that the op stands for."""
        return *self.chain.parts, *self.scales, *[step.op for step in self.steps]

    @property
    def spelling(self) -> tuple:
        """Of all steps."""
        return tuple((step.word, step.form) for step in (*self.between, *self.steps))

    @property
    def words(self) -> dict:
        """The attributes with the steps."""
        behind = _steps.words(self.steps)
        if self.chain.pointwise is None:
            return {"depthwise_steps": behind}
        if self.chain.depthwise is None:
            return {"pointwise_steps": behind}
        return {"depthwise_steps": _steps.words(self.between), "pointwise_steps": behind}

    @property
    def op(self) -> str:
        """What TensorFlow calls the op."""
        if self.chain.pointwise is None:
            return _library.DEPTHWISE
        if self.chain.depthwise is None:
            return _library.POINTWISE
        return _library.FUSED if any(self.words.values()) else _library.op_name()

    @property
    def given(self) -> list:
        """What the op takes besides its geometry; None for numbers of its own."""
        numbers = (operand for step in (*self.between, *self.steps) for operand in step.given())
        return [self.chain.input, *self.chain.filters, *numbers]

    def apply(self, edit: Edit) -> None:
        """Puts the op among the nodes, under the name of the last one that it stands for."""
        chain = self.chain
        operations = self.operations
        # What was cut out of a model lacks what nobody takes.
        nodes = [edit.by_name[op.name] for op in operations if op.name in edit.by_name]
        names, taken = {node.name for node in nodes}, [input for node in nodes for input in node.input]
        convolutions = [op for op in (chain.depthwise, chain.pointwise) if op is not None]
        inputs = [nodes[0].input[0], *[edit.by_name[op.name].input[1] for op in convolutions]]
        last = nodes[-1]
        if self.scaled_filter is not None:
            inputs[-1] = edit.constant(f"{last.name}/pointwise_filter", self.scaled_filter)
        inputs.append(edit.nothing(f"{last.name}/geometry", _library.geometry(chain.call.request())["carrier"]))
        steps = *self.between, *self.steps
        numbers = [input for step in steps for input in step.inputs(edit)]
        inputs += numbers
        inputs += dict.fromkeys(input for input in taken if input[0] == "^" and input[1:] not in names)
        shapes = dict(last.attr).get("_output_shapes")
        last.op = self.op
        del last.input[:]
        last.input.extend(inputs)
        last.attr.clear()
        last.attr["T"].type = chain.call.dtype.as_datatype_enum
        last.attr["numerics"].s = self.numerics.encode()
        if chain.pointwise is not None:
            last.attr["constant_filters"].b = constant(chain.filters[-1].op) or stays(chain.filters[-1])
        if last.op != _library.op_name():
            last.attr["N"].i = len(numbers)
            for name, words in self.words.items():
                last.attr[name].s = words.encode()
        if shapes is not None:
            last.attr["_output_shapes"].list.shape.extend(shapes.list.shape[:1])
        scaled = (chain.pointwise, *self.scales)
        passed = {scale: before.outputs[0] for before, scale in itertools.pairwise(scaled)}
        _originals.keep(last, operations[-1].outputs[0], self.given, passed)
        edit.rename(last.name, operations[-1].op_def.output_arg[0].name, "output")
        edit.keep_in_frame(inputs[0])
        edit.remove(names - {last.name}, taken)


def takeover(chain: Chain, places: list, done: list) -> Takeover:
    """How the op takes the place of a chain.

    Args:
        chain: The chain.
        places: The `Place`s that it runs at.
        done: The `Takeover`s before it.

    Raises:
        Left: It does not; the message says why.
    """
    if chain.hindrance:
        raise Left(chain.hindrance)
    if chain.pad is not None:
        try:
            return _takeover(chain, places, done)
        except Left:
            chain = chain.without_pad()
    return _takeover(chain, places, done)


def _takeover(chain: Chain, places, done) -> Takeover:
    for place in places:
        there = chain.at(place.graph)
        if any(op.name in place.twins for op in (chain.depthwise, chain.pointwise) if op is not None):
            raise Left("TensorFlow's optimiser computes it once for two layers that are the same")
        if chain.depthwise is None and constant(there.filters[-1].op) and _scaled_in_front(there.input):
            raise Left("TensorFlow's optimiser multiplies the number in front of it into its filter")
    trials = [_Trial(chain.at(place.graph), place, done) for place in places]
    kinds = trials[0].kinds
    if any(trial.kinds != kinds for trial in trials):
        raise Left("its filters are constants where one function is called, and arguments elsewhere")
    if chain.pointwise is None:
        return _alone(chain, kinds, trials)
    plain = Takeover(chain, *(_scaled(chain) if kinds[-1] else ()), between=chain.between_steps)
    biased = bool(plain.rest) and plain.rest[0].type in _ADDITIONS
    # With the steps behind it or, where these change bits, with fewer or without.
    known, difference = chain.behind_steps[len(plain.scales) :], ""
    for behind in _steps.fewer(known):
        if chain.depthwise is None and not behind:
            difference = difference or "TensorFlow's optimiser multiplies what is behind it into its filter"
            break  # one operation, as TensorFlow's is
        for bias in dict.fromkeys([biased, False]):
            context = Context((kinds[0], kinds[-1]), bias)
            order = _order(chain, context)
            if order.numerics is None:
                raise Left(order.reason)
            found = dataclasses.replace(plain, steps=behind, numerics=order.numerics, reason=order.reason)
            found, difference = _spelled(found, context, trials)
            if not difference:
                return found
    raise Left(difference)


def _alone(chain: Chain, kinds: tuple, trials: list) -> Takeover:
    """The same of a depthwise part: with the steps behind it, with fewer or, if that is worth while, without."""
    context = Context((*kinds, *kinds))
    order = _order(chain, context)
    if order.numerics is None:
        raise Left(order.reason)
    known = chain.behind_steps
    for steps in _steps.fewer(known):
        if known and not steps and chain.space_to_batch is None:
            break
        found = Takeover(chain, steps=steps, numerics=order.numerics, reason=order.reason)
        found, difference = _spelled(found, context, trials)
        if not difference:
            return found
    raise Left(difference)


# What hands numbers on as they are.
_PASSED = {
    *("CheckNumerics", "ExpandDims", "Identity", "PreventGradient", "Reshape", "Snapshot", "Squeeze", "StopGradient"),
    "Transpose",
}
# With a constant that changes nothing, they do, too.
_NEUTRAL = {"Add": 0, "AddV2": 0, "Sub": 0, "Mul": 1, "Div": 1, "RealDiv": 1}


def _scaled_in_front(image: tf.Tensor) -> bool:
    """Whether an image is multiplied by a number, or added to itself, which TensorFlow's optimiser takes for that."""
    while True:
        op = image.op
        if op.type in ("Add", "AddV2", "AddN") and len(op.inputs) > 1 and len({t.ref() for t in op.inputs}) == 1:
            return True
        numbers = [tensor for tensor in op.inputs if constant(tensor.op)]
        if op.type in _PASSED:
            image = op.inputs[0]
        elif op.type not in _NEUTRAL or len(numbers) != 1:
            return False
        elif op.type in ("Mul", "Div", "RealDiv") and numbers[0].shape.rank == 0:
            return True
        elif (_values(numbers[0])[0] == _NEUTRAL[op.type]).all():
            [image] = [tensor for tensor in op.inputs if tensor is not numbers[0]]
        else:
            return False


def _scaled(chain: Chain) -> tuple:
    """The steps behind the chain that multiply by constants, and the pointwise filter multiplied with them."""
    scales, filter, image = [], None, chain.pointwise.outputs[0]
    for step in chain.behind:
        if step.type not in ("Mul", "RealDiv") or step.type == "RealDiv" and step.inputs[0] is not image:
            break
        [factor] = [tensor for tensor in step.inputs if tensor is not image] or [image]
        if not constant(factor.op):
            break
        if filter is None:
            [filter] = _values(chain.filters[-1])
        [factor] = _values(factor)
        # One number for each channel, or one.
        if set(factor.shape[:-1]) - {1} or np.broadcast_shapes(filter.shape, factor.shape) != filter.shape:
            break
        # With TensorFlow's own kernels, as its optimiser does, which turns quotients into products.
        with eager.eager_mode():
            factor = tf.constant(factor)
            if step.type == "RealDiv":
                factor = tf.raw_ops.Reciprocal(x=factor)
            filter = tf.raw_ops.Mul(x=tf.constant(filter), y=factor).numpy()
        scales.append(step)
        image = step.outputs[0]
    return tuple(scales), filter if scales else None


def _values(*tensors) -> list:
    """Of tensors that are made of constants."""
    known = [tensor_util.constant_value(tensor) for tensor in tensors]
    if all(value is not None for value in known):
        return known
    with eager.eager_mode():
        return [value.numpy() for value in Subgraph(tensors, None).function()()]


def _order(chain: Chain, context: Context) -> _orders.Order:
    if chain.depthwise is None:
        return _orders.order_of(_without_strides(chain.call), context)
    if chain.pad is None:
        return _orders.order_of(chain.call, context)
    order = _orders.order_of(chain.padded, context)
    if order.numerics is None:
        return order
    return dataclasses.replace(order, numerics=_numerics.with_zeros(order.numerics))


def _without_strides(call: Call) -> Call:
    """Of a 1x1 convolution alone, on the pixels that it takes: not every depthwise kernel takes its strides."""
    batch, *image, channels = call.input
    image = [None if n is None else -(-n // stride) for n, stride in zip(image, call.strides, strict=True)]
    return dataclasses.replace(call, input=(batch, *image, channels), strides=(1, 1), padding="VALID")


def _with_strides(call: Call, pixels: Call) -> Call:
    """The call with what is unknown filled in, so that it takes these pixels."""
    batch, *image, channels = call.input
    extents = zip(image, pixels.input[1:3], call.strides, strict=True)
    image = [(n - 1) * stride + 1 if known is None else known for known, n, stride in extents]
    return dataclasses.replace(call, input=(pixels.input[0], *image, channels))


def _examples(chain: Chain) -> list:
    """The call, or such whose order is known, with every extent."""
    if chain.call.known:
        return [chain.call]
    if chain.depthwise is None:
        return [_with_strides(chain.call, each) for each in _orders.examples(_without_strides(chain.call))]
    if chain.pad is None:
        return list(_orders.examples(chain.call))
    padding = chain.call.padding
    examples = [unpadded(dataclasses.replace(each, padding=padding)) for each in _orders.examples(chain.padded)]
    return [example for example in examples if "error" not in _library.geometry(example.request())]


# How often steps held in a spelling: layers of a model are alike.
_held: collections.Counter = collections.Counter()


def _spelled(found: Takeover, context: Context, trials: list) -> tuple:
    """With its steps in a spelling in which no bit differs, and ""; or as it is, and how bits differ."""
    spellings = itertools.product(_steps.spellings(found.between), _steps.spellings(found.steps))
    candidates = [dataclasses.replace(found, between=between, steps=steps) for between, steps in spellings]
    for candidate in sorted(candidates, key=lambda candidate: -_held[candidate.spelling]):
        difference = next(filter(None, (trial.difference(candidate, context) for trial in trials)), "")
        if not difference:
            _held[candidate.spelling] += 1
            return candidate, ""
    return found, difference


_compared: dict = {}
_theirs: dict = {}


class _Trial:
    """A chain at one of the places that it runs at, with what surrounds it there, cut out.

    Attributes:
        kinds: Whether its filters are constants there.
    """

    def __init__(self, chain: Chain, place, done: list):
        self._chain, self.kinds = chain, tuple(constant(filter.op) for filter in chain.filters)
        # What TensorFlow's optimiser would compute together with the chain may be an op by now.
        others = [tuple(place.graph.get_operation_by_name(op.name) for op in found.operations) for found in done]
        inside, outputs = surroundings((*chain.parts, *chain.behind), chain.input, place.kept, others)
        self._done = [found for found, other in zip(done, others, strict=True) if inside.issuperset(other)]
        self._part = Subgraph(outputs, chain.input, inside)

    @functools.cached_property
    def _feeds(self) -> list:
        feeds = [_feeds(self._part, example) for example in _examples(self._chain)]
        return [_not_finite(self._part, feeds[-1]), _overflowing(self._part, feeds[-1]), *feeds]

    def difference(self, found: Takeover, context: Context) -> str:
        """How the bits differ on random numbers; "" where they do not."""
        part = self._part
        ours = tf.compat.v1.GraphDef.FromString(part.definition.SerializeToString())
        for each in (*self._done, found):
            each.apply(Edit(ours.node))
        same = part.fingerprint(), context.constant
        # Where in the part they are: two layers that are added are cut out with each other.
        names = [{op.name for op in each.operations} for each in (*self._done, found)]
        where = [tuple(n for n, node in enumerate(part.definition.node) if node.name in each) for each in names]
        what = [(each.numerics, each.spelling) for each in (*self._done, found)]
        key = same, (*where, *what), context
        if key not in _compared:

            def run(definition) -> list:
                trials = _trials(part, definition, self._feeds)
                return [array for graph, given in trials for array in context.run(graph, given, part.outputs)]

            try:
                if same not in _theirs:
                    _theirs.clear()  # these are large
                    _theirs[same] = run(part.definition)
                theirs, results = _theirs[same], run(ours)
            except RuntimeError as error:
                return f"TensorFlow refuses it: {one_line(error)}"
            pairs = [(a, b) for a, b in zip(theirs, results, strict=True) if a.shape == b.shape]
            equal = sum(_bits.equal(a, b) for a, b in pairs)
            elements = sum(array.size for array in theirs)
            steps = [op.type for op in found.rest if op.type not in ("Identity", "IdentityN")]
            behind = f", with {', '.join(steps)} behind it" if steps else ""
            _compared[key] = (
                ""
                if equal == elements
                else f"here{behind}, TensorFlow gives other bits than its parts by themselves: "
                f"of {elements} elements {elements - equal} differ"
            )
        return _compared[key]


def _trials(part: Subgraph, definition, feeds: list):
    """Serialized graphs, and what each of them is fed.

    In the whole model, TensorFlow's optimiser may know that images of unknown extents are alike, and adds three of them
    up in another order then. Here it cannot know, so where there are several they have known extents once more.
    """
    yield definition.SerializeToString(), feeds
    if any(not tensor.shape.is_fully_defined() for tensor in part.others.values()):
        known = tf.compat.v1.GraphDef.FromString(definition.SerializeToString())
        for node in known.node:
            if node.name in feeds[-1]:
                node.attr["shape"].shape.CopyFrom(tf.TensorShape(feeds[-1][node.name].shape).as_proto())
        yield known.SerializeToString(), feeds[-1:]


def _feeds(part: Subgraph, example) -> dict:
    rng, output = np.random.default_rng(0), _library.geometry(example.request())["output"]
    output[3] = output[3] or example.pointwise_filter[2]  # of a depthwise part
    feeds = {part.input: rng.standard_normal(example.input)}
    for name, tensor in part.others.items():
        shape = tensor.shape.as_list() if tensor.shape.rank is not None else output[3:]
        if len(shape) > 1 and None not in shape[1:]:
            shape[0] = shape[0] or output[0]
        elif None in shape:
            shape = [known or extent for known, extent in zip(shape, output[4 - len(shape) :], strict=True)]
        # Above zero, for variances.
        feeds[name] = rng.uniform(0.5, 1.5, shape) * (rng.choice([-1, 1], shape) if len(shape) == 4 else 1)
    dtypes = {part.input: example.dtype, **{name: tensor.dtype for name, tensor in part.others.items()}}
    return {name: array.astype(dtypes[name].as_numpy_dtype) for name, array in feeds.items()}


def _not_finite(part: Subgraph, feeds: dict) -> dict:
    """The same with three numbers of the input that are none."""
    array = feeds[part.input].copy()
    array.flat[[0, array.size // 2, -1]] = np.nan, np.inf, -np.inf
    return {**feeds, part.input: array}


def _overflowing(part: Subgraph, feeds: dict) -> dict:
    """The same with pixels of which all numbers are infinite, or the largest there are: behind a ReLU, their products
    make NaN that no step in front has seen."""
    array = feeds[part.input].copy()
    pixels = array.reshape(-1, array.shape[-1])
    largest = tf.as_dtype(array.dtype).max
    for n, value in enumerate([-np.inf, largest, np.inf]):
        pixels[n * (len(pixels) - 1) // 2] = value
    return {**feeds, part.input: array}
