"""Which numerics a call has: revealed on first use of a geometry, checked, and kept for the process.

One lock serves all reveals: TensorFlow's heuristics see the machine as a call would find it.
"""

import contextlib
import ctypes
import dataclasses
import functools
import math
import os
import threading

import numpy as np

from sepconv import _library, _probes, _signals
from sepconv._arguments import Call
from sepconv._context import Context

# By the names that `numerics` has for them; a `Context` stands for itself.
CONTEXTS = {"tensorflow": _probes.Eager, "tensorflow-constant": Context()}

# Where the height or width is unknown when a graph is built, orders are revealed for images of these extents, small
# ones first, as long as a product stays below that many multiply-adds (some milliseconds): a single pixel and a few,
# which TensorFlow multiplies in ways of their own, the dearest layer of the common networks at 224 pixels and the
# extents it is used at.
EXTENTS = (1, 2, 7, 14, 28, 56)
WORK = 1 << 28

# Of the machine, in bytes.
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

_lock = threading.RLock()
_known: dict = {}


@dataclasses.dataclass(frozen=True)
class Order:
    """The text of the numerics, or why there is none."""

    numerics: str | None
    reason: str


def order_of(call: Call, context: str | Context) -> Order:
    """The order of a call; where its extents are unknown, several to choose from.

    Raises:
        ProfileRunning: If it is not known yet.
    """
    key = call, context
    found = _known.get(key)
    if found is None:
        with _lock:
            found = _known.get(key)
            if found is None:
                found = _reveal(call, context) if call.known else _predict(call, context)
                _known[key] = found
    return found


def _reveal(call: Call, context: str | Context) -> Order:
    if context == "tensorflow":
        _probes.refuse_while_profiling()
    geometry = _library.geometry(call.request())
    if hindrance := _hindrance(call, geometry):
        return hindrance
    probe = CONTEXTS.get(context, context)(call, geometry)
    k, columns = call.pointwise_filter[2:]
    image = (*geometry["output"][:3], k)
    parts = {
        0: (probe.depthwise, call.input, call.depthwise_filter, image),
        1: (probe.pointwise, image, call.pointwise_filter, (*image[:3], columns)),
    }
    return _ask(call, {}, parts, elsewhere=context != "tensorflow")


def _hindrance(call: Call, geometry: dict) -> Order | None:
    """Why there can be no probes, if there is a reason."""
    if "error" in geometry:
        return Order(None, geometry["error"])
    # A reveal holds as much as each array up to sixteen times, and leaves at least half of the machine's memory alone.
    if 16 * memory_of(call, geometry) > MEMORY // 2:
        return Order(None, "probes of this size would take more memory than they may")
    return None


def _ask(call: Call, request: dict, parts: dict, elsewhere: bool = False) -> Order:
    """What the library reveals of a function and the shapes of its two arguments and its result, by part.

    Args:
        call: The call.
        request: What else is asked.
        parts: By number.
        elsewhere: Whether the functions ask another process: it takes seconds to begin, so that those of a reveal count
            little, and what a handler of a signal raises meanwhile ends the waiting. TensorFlow's own code can take it
            for a mistake of its own or, rarely, fall over it: handlers wait for the end of a probe there.
    """
    raised = []

    def ask(_, part, input, filter, output):
        function, *extents = parts[part]
        try:
            handlers.run()
            arrays = [_array(p, shape, call.dtype) for p, shape in zip((input, filter, output), extents, strict=True)]
            with handlers.let_run() if elsewhere else contextlib.nullcontext():
                result = function(*arrays[:2])
            arrays[2][...] = result
            return 0
        except BaseException as error:  # nothing may unwind into Rust; raised again below
            raised.append(error)
            return 1

    with _signals.Waiting() as handlers:
        answer = _library.reveal({**call.request(), "dtype": call.dtype.name, "patient": elsewhere, **request}, ask)
    if raised and not isinstance(raised[0], Exception):
        raise raised[0]
    if raised:
        return Order(None, f"TensorFlow's own operations refused a probe: {raised[0]}")
    if "numerics" in answer:
        return Order(answer["numerics"], "the order was revealed and every probe agrees with it")
    return Order(None, f"the kernels do not follow TensorFlow's order here: {answer['unclear']}")


def gradient_of(call: Call, name: str, forward: str) -> Order:
    """The order of a gradient of a call whose shapes are known, or which is reproducible.

    Args:
        call: The call.
        name: Of "input", "depthwise_filter", "pointwise_filter" or "pixels", which is the depthwise result.
        forward: The text of the call's own numerics, whose depthwise sums the pointwise filter's gradient takes up.

    Raises:
        ProfileRunning: If it is not known yet.
    """
    if forward == reproducible():
        return Order("reproducible", "the numerics were given")
    key = call, name, forward if name == "pointwise_filter" else None
    found = _known.get(key)
    if found is None:
        with _lock:
            found = _known.get(key) or _reveal_gradient(call, name, forward)
            _known[key] = found
    return found


@functools.cache
def reproducible() -> str:
    """The text of these numerics."""
    attributes = {"strides": [1, 1], "rate": [1, 1], "padding": "VALID", "numerics": "reproducible"}
    return _library.geometry(attributes)["numerics"]


def _reveal_gradient(call: Call, name: str, forward: str) -> Order:
    _probes.refuse_while_profiling()
    geometry = _library.geometry(call.request())
    if hindrance := _hindrance(call, geometry):
        return hindrance
    if forward.startswith("batch"):  # of a graph whose shapes were unknown
        forward = order_of(call, "tensorflow").numerics
        if forward is None:
            return Order(None, "the order of the depthwise sums that it takes up is not known")
    probe = _probes.Eager(call, geometry)
    k, columns = call.pointwise_filter[2:]
    rows = math.prod(geometry["output"][:3])
    image, output = (*geometry["output"][:3], k), (*geometry["output"][:3], columns)
    part = {
        "pixels": (probe.pixels_gradient, output, (columns, k), image),
        "input": (probe.input_gradient, image, call.depthwise_filter, call.input),
        "depthwise_filter": (probe.depthwise_filter_gradient, call.input, image, call.depthwise_filter),
        "pointwise_filter": (probe.pointwise_filter_gradient, (k, rows), output, call.pointwise_filter),
    }[name]
    return _ask(call, {"gradient": name, "numerics": forward}, {2: part})


def memory_of(call: Call, geometry: dict) -> int:
    """Bytes that TensorFlow's own operations take for a call whose shapes are known, which hold each array once."""
    batch, height, width, channels = call.input
    pixels = batch
    for extent, zeros in zip((height, width), geometry["paddings"], strict=True):
        pixels *= extent + sum(zeros)
    k, columns = call.pointwise_filter[2:]
    elements = pixels * (channels + k) + math.prod(geometry["output"][:3]) * (k + columns)
    elements += math.prod(call.depthwise_filter) + k * columns
    return elements * call.dtype.size


def _array(pointer, shape, dtype) -> np.ndarray:
    length = int(np.prod(shape)) * dtype.size
    return np.frombuffer((ctypes.c_byte * length).from_address(pointer or 0), dtype.as_numpy_dtype).reshape(shape)


def _predict(call: Call, context: str | Context) -> Order:
    """Orders for several extents, for the kernel to choose from by the rows that it sees."""
    orders = []
    for example in examples(call):
        geometry = _library.geometry(example.request())
        order = order_of(example, context)
        if order.numerics:
            batch, height, width, _ = geometry["output"]
            orders.append(f"batch {batch} rows {batch * height * width}: {order.numerics}")
    if not orders:
        return Order(None, "the shape is unknown, and no order could be revealed for any that it may be")
    return Order("; ".join(orders), "the shape is unknown: the kernel picks the order revealed for the nearest one")


def examples(call: Call):
    """The call with its unknown batch, height and width filled in."""
    batch, height, width, channels = call.input
    unknown = [n for n, extent in enumerate((height, width)) if extent is None]
    for images in [batch] if batch is not None else [1, 2]:
        for count, extent in enumerate(EXTENTS if unknown else (0,)):
            least = [(k - 1) * r + 1 for k, r in zip(call.depthwise_filter[:2], call.rate, strict=True)]
            image = [extent + least[n] - 1 if known is None else known for n, known in enumerate((height, width))]
            example = dataclasses.replace(call, input=(images, *image, channels))
            geometry = _library.geometry(example.request())
            if "error" in geometry:
                continue
            rows = int(np.prod(geometry["output"][:3]))
            if count <= 2 or rows * call.pointwise_filter[2] * call.pointwise_filter[3] <= WORK:
                yield example
