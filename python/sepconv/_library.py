"""The one shared library: its op in TensorFlow, and its plain C functions through `ctypes`.

Geometry, numerics and revealing exist once, in Rust; this module only carries JSON and pointers.
"""

import ctypes
import functools
import json
import pathlib
import platform
import sys
from typing import Any

if sys.platform != "linux" or platform.machine() != "x86_64":
    raise ImportError(
        f"sepconv's TensorFlow op is built for Linux on x86-64, and this is {sys.platform} on {platform.machine()}; "
        "the Rust crate `sepconv` is not bound to it"
    )

try:
    import tensorflow as tf
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.eager import context, core
    from tensorflow.python.framework import ops
except ImportError as error:
    raise ImportError(
        "sepconv needs TensorFlow 2.12 or newer and does not install it, so that you choose the package: "
        "pip install tensorflow-cpu (or tensorflow)"
    ) from error

# (user data, 0 depthwise or 1 pointwise, input, filter, output) -> 0 if all went well.
PROBE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 3)


def library_path() -> str:
    """Path of the shared library, for `tf.load_op_library` and for C, C++ and Rust programs.

    Returns:
        A string, the same for every version of Python and of TensorFlow.

    Raises:
        ImportError: If the package was not built.

    Example:
        >>> tf.load_op_library(sepconv.library_path())
    """
    path = pathlib.Path(__file__).with_name("libsepconv.so")
    if not path.exists():
        raise ImportError("sepconv is not built: run `pip install ./python` in its source tree")
    return str(path)


@functools.cache
def _module():
    return tf.load_op_library(library_path())


@functools.cache
def _c():
    # TensorFlow makes functions of the ops that appear while it loads a library itself, so it goes first.
    _module()
    c = ctypes.CDLL(library_path())
    for name, arguments in {
        "sepconv_geometry": [ctypes.c_char_p],
        "sepconv_reveal": [ctypes.c_char_p, PROBE, ctypes.c_void_p],
        "sepconv_stats_json": [],
    }.items():
        function = getattr(c, name)
        function.argtypes = arguments
        # Not c_char_p, which would copy and lose the pointer that must be freed.
        function.restype = ctypes.c_void_p
    c.sepconv_free.argtypes = [ctypes.c_void_p]
    c.sepconv_registration_error.restype = c.sepconv_version.restype = ctypes.c_char_p
    # For graphs that were built elsewhere and run before anything is built here.
    c.sepconv_set_threads(tf.config.threading.get_intra_op_parallelism_threads())
    return c


def _text(pointer) -> str:
    try:
        return ctypes.string_at(pointer).decode()
    finally:
        _c().sepconv_free(pointer)


@functools.cache
def op(gradient: str = ""):
    """The op as a Python function, made by TensorFlow; or that of a gradient, "input" for example."""
    error = _c().sepconv_registration_error()
    if error:
        raise ImportError(f"sepconv's op could not be registered with TensorFlow {tf.__version__}: {error.decode()}")
    name, function = op_name(gradient), "sepconv_separable_conv2d" + ("_backprop_" + gradient if gradient else "")
    try:
        return getattr(_module(), function)
    except AttributeError:
        # Another copy of the library, loaded before, brought the op; TensorFlow makes functions of what is new only.
        from tensorflow.python.framework import _pywrap_python_op_gen, op_def_registry

        ops, namespace = op_def_pb2.OpList(op=[op_def_registry.get(name)]), {}
        exec(_pywrap_python_op_gen.GetPythonWrappers(ops.SerializeToString()), namespace)
        return namespace[function]


def op_name(gradient: str = "") -> str:
    """What TensorFlow calls it."""
    return "Sepconv>SeparableConv2D" + ("Backprop" + gradient.title().replace("_", "") if gradient else "")


# The op with steps behind its two parts, and those of one part alone.
FUSED = "Sepconv>FusedSeparableConv2D"
DEPTHWISE = "Sepconv>FusedDepthwiseConv2D"
POINTWISE = "Sepconv>FusedPointwiseConv2D"


def executing_eagerly() -> bool:
    """`tf.executing_eagerly()`, as TensorFlow's generated functions ask it."""
    return (context._context or context.context())._thread_local_data.is_eager


def convolve(input, depthwise_filter, pointwise_filter, carrier, numerics, name):
    """The op on eager tensors: what `op()` does in the end."""
    try:
        return pywrap_tfe.TFE_Py_FastPathExecute(
            *(context._context, "Sepconv>SeparableConv2D", name, input, depthwise_filter, pointwise_filter, carrier),
            *("numerics", numerics),
        )
    except core._NotOkStatusException as error:
        ops.raise_from_not_ok_status(error, name)
    except core._FallbackException:
        return op()(input, depthwise_filter, pointwise_filter, carrier, numerics=numerics, name=name)


def geometry(request: dict) -> dict:
    """What the Rust crate says of shapes, attributes and numerics; an "error" if it refuses them."""
    return json.loads(_text(_c().sepconv_geometry(json.dumps(request).encode())))


def reveal(request: dict, probe) -> dict:
    """The "numerics" of a black box, or why they are "unclear"."""
    return json.loads(_text(_c().sepconv_reveal(json.dumps(request).encode(), PROBE(probe), None)))


def stats() -> dict[str, Any]:
    """What the library's kernels really did in this process.

    Returns:
        A dictionary of counts since the library was loaded, in which refused calls do not count:
        `kernel_calls`: of the whole convolution's op; `kernel_calls_by_dtype`: these by dtype's name.
        `fused_calls`: those of `kernel_calls` with steps between the parts or behind them, as `rewrite` makes them.
        `depthwise_calls`, `pointwise_calls`: of the ops of one part alone, which `rewrite` makes; `kernel_calls` is
            without them.
        `gradient_calls`: of the gradients' ops, of which one backward pass calls up to four.
        `shape_function_calls`: how often TensorFlow asked for a result's shape while a graph was built.
        `packings`: how many pointwise filters were packed to be kept.
        `threads`, no count: how many the kernels use.

    Example:
        >>> before = sepconv.stats()["kernel_calls"]
        >>> y = sepconv.separable_conv2d(x, depthwise_filter, pointwise_filter, [1, 1, 1, 1], "SAME")
        >>> sepconv.stats()["kernel_calls"] - before
        1
    """
    return json.loads(_text(_c().sepconv_stats_json()))


def set_threads(threads: int) -> None:
    """How many threads the kernels use."""
    _c().sepconv_set_threads(threads)


def version() -> str:
    """The library's version."""
    return _c().sepconv_version().decode()
