"""Gradients are TensorFlow's to the bit, most of them through our own ops; second derivatives are TensorFlow's."""

import concurrent.futures
import functools
import re
import sys

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN, PROMISED, THREADS
from helpers import arrays_of, gradient_calls, kernel_calls, same, tensorflows
from sepconv import _library
from test_bits import random_case

pytestmark = PROMISED

CASES = {
    "plain": ([1, 1, 1, 1], "SAME", "NHWC", None),
    "strided": ([1, 2, 2, 1], "VALID", "NHWC", None),
    "dilated": ([1, 1, 1, 1], "SAME", "NHWC", [2, 3]),
    "strided and dilated": ([1, 2, 2, 1], "SAME", "NHWC", [2, 2]),
    "explicit": ([1, 1, 1, 1], [[0, 0], [1, 2], [0, 1], [0, 0]], "NHWC", None),
}


NAMES = "input", "depthwise_filter", "pointwise_filter"


def tensors_of(dtype):
    rng = np.random.default_rng(5)
    shapes = [2, 9, 8, 4], [3, 3, 4, 2], [1, 1, 8, 5]
    return [tf.constant(rng.standard_normal(shape), dtype) for shape in shapes]


def gradients(convolve, tensors, attributes):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = convolve(*tensors, *attributes)
        loss = tf.reduce_sum(output * output)
    return tape.gradient(loss, tensors)


def second(convolve, tensors, attributes):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        first = gradients(convolve, tensors, attributes)
        loss = tf.add_n([tf.reduce_sum(gradient * gradient) for gradient in first])
    return tape.gradient(loss, tensors)


def all_same(ours, theirs):
    return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))


def ops_of(found) -> int:
    """How many of ours the gradients take, by what was explained: two share that of the depthwise result."""
    through_ops = {name for name in NAMES if found[name].path == "op"}
    return len(through_ops) + bool(through_ops - {"pointwise_filter"})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_on_a_tape_and_in_a_function(case, dtype):
    tensors, attributes = tensors_of(dtype), CASES[case]
    explained = sepconv.explain(*tensors, *attributes)
    found = sepconv.explain_gradients(*tensors, *attributes)
    theirs = gradients(tensorflows, tensors, attributes)
    function = tf.function(lambda *tensors: gradients(sepconv.separable_conv2d, list(tensors), attributes))
    for call in (lambda *tensors: gradients(sepconv.separable_conv2d, tensors, attributes), function):
        before, gradients_before = kernel_calls(), gradient_calls()
        assert all_same(call(*tensors), theirs)
        assert kernel_calls() - before == (explained.path == "op")
        assert gradient_calls() - gradients_before == ops_of(found)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tensors)
        output = sepconv.separable_conv2d(*tensors, *attributes)
        loss = tf.reduce_sum(output * output)
    for tensor, expected in zip(tensors, theirs, strict=True):
        before = gradient_calls()
        assert same(tape.gradient(loss, tensor), expected)
        assert gradient_calls() - before == ops_of(found)  # TensorFlow asks for all that is watched


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_reproducible_ones_are_all_ours(case, dtype):
    """In one process's every context with the same bits, and near TensorFlow's."""
    tensors, attributes = tensors_of(dtype), CASES[case]
    convolve = functools.partial(sepconv.separable_conv2d, numerics="reproducible")
    function = tf.function(lambda *tensors: gradients(convolve, tensors, attributes))
    before = gradient_calls()
    ours = gradients(convolve, tensors, attributes)
    assert gradient_calls() - before == 4
    assert all_same(function(*tensors), ours)
    assert gradient_calls() - before == 8
    epsilon = np.finfo(np.float32 if dtype == "bfloat16" else dtype).eps * (2**16 if dtype == "bfloat16" else 1)
    for a, b in zip(ours, gradients(tensorflows, tensors, attributes), strict=True):
        a, b = tf.cast(a, tf.float64), tf.cast(b, tf.float64)
        assert tf.reduce_max(tf.abs(a - b)) <= 16 * epsilon * tf.reduce_max(tf.abs(b))


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives(case):
    """Of small integers, so that no order of sums matters: these add up what comes along several ways."""
    tensors, attributes = [tf.round(tensor) for tensor in tensors_of("float64")], CASES[case]
    theirs = second(tensorflows, tensors, attributes)
    convolve = functools.partial(sepconv.separable_conv2d, numerics="reproducible")
    before = kernel_calls()
    assert all_same(second(convolve, tensors, attributes), theirs)
    assert kernel_calls() - before == 1
    assert all_same(tf.function(lambda *t: second(convolve, list(t), attributes))(*tensors), theirs)


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("case", CASES)
def test_in_a_branch(case, batch):
    """Of a `tf.cond`, whose gradient is a graph of its own: of two convolutions of what is computed there."""
    tensors, attributes = [tf.round(tensor) for tensor in tensors_of("float64")], CASES[case]
    signature = [
        tf.TensorSpec([batch, *tensors[0].shape[1:]], tf.float64),
        *map(tf.TensorSpec.from_tensor, tensors[1:]),
    ]

    def results(function):
        def branch(x, depthwise_filter, pointwise_filter, *attributes):
            def twice():
                inner = x * x, depthwise_filter * 2
                return function(*inner, pointwise_filter, *attributes) + function(
                    *inner, pointwise_filter + 1, *attributes
                )

            return tf.cond(
                tf.size(x) > 0, twice, lambda: 2 * function(x, depthwise_filter, pointwise_filter, *attributes)
            )

        def both(*tensors):
            return gradients(branch, list(tensors), attributes), second(branch, list(tensors), attributes)

        return tf.nest.flatten(tf.function(both, input_signature=signature)(*tensors))

    assert all_same(results(functools.partial(sepconv.separable_conv2d, numerics="reproducible")), results(tensorflows))


@pytest.mark.parametrize("case", CASES)
def test_v1_gradients(case):
    """Those of eager calls: in v1 graphs TensorFlow's own gradients have other bits with oneDNN on two threads."""
    tensors = tensors_of("float32")
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=THREADS)
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        constants = [tf.constant(tensor.numpy()) for tensor in tensors]
        output = sepconv.separable_conv2d(*constants, *CASES[case])
        ours = session.run(tf.gradients(output * output, constants))
    assert all_same(ours, gradients(tensorflows, tensors, CASES[case]))


def test_300_random_geometries(rng, capsys):
    count, of_all, of_each, left = 300, 0, dict.fromkeys(NAMES, 0), {}
    index = 0
    while index < count:
        arrays, attributes = random_case(rng)
        tensors = [tf.constant(array, tf.float32) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = tensorflows(*tensors, **attributes)
        if 0 in output.shape:
            continue  # TensorFlow leaves the filters' gradients as the memory was
        index += 1
        upstream = tf.constant(rng.standard_normal(output.shape), tf.float32)
        theirs = tape.gradient(output, tensors, upstream)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = sepconv.separable_conv2d(*tensors, **attributes)
        before = gradient_calls()
        ours = tape.gradient(output, tensors, upstream)
        took_part = gradient_calls() - before
        shapes = [list(array.shape) for array in arrays]
        found = sepconv.explain_gradients(*tensors, **attributes)
        assert took_part == ops_of(found), (index, shapes, attributes, found)
        for name, a, b in zip(NAMES, ours, theirs, strict=True):
            assert same(a, b), (index, name, shapes, attributes, found[name])
            through_op = found[name].path == "op"
            of_each[name] += through_op
            if not through_op:
                left.setdefault(f"{name}: {found[name].reason}", []).append((shapes, attributes))
        of_all += all(explanation.path == "op" for explanation in found.values())
    with capsys.disabled():
        mode = f"oneDNN {'on' if ONEDNN else 'off'}, {THREADS} thread(s)"
        print(
            f"\n{mode}: {count} of {count} equal, all three through our ops {of_all}, of each {of_each}",
            file=sys.stderr,
        )
        for reason, cases in left.items():
            print(f"  {len(cases)} to TensorFlow, such as {cases[0]}: {reason}", file=sys.stderr)
    assert of_all >= (0.95 if ONEDNN else 0.8) * count


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_small_results(dtype, rng):
    """A number or two of random data are the same in several orders: what is found must hold for other data."""
    for index in range(40):
        channels, multiplier, columns = rng.choice([1, 1, 2, 3]), rng.integers(1, 3), rng.choice([1, 2, 8])
        image, rate = rng.integers(1, 11, 2), rng.integers(1, 3, 2) if index % 3 == 0 else [1, 1]
        kernel = np.minimum(rng.integers(1, 4, 2), image)
        shapes = [rng.integers(1, 5), *image, channels], [*kernel, channels, multiplier]
        shapes = *shapes, [1, 1, channels * multiplier, columns]
        attributes = [1, 1, 1, 1], "SAME", "NHWC", rate
        for _ in range(6):
            tensors = [tf.constant(rng.standard_normal(shape), dtype) for shape in shapes]
            ours, theirs = (
                gradients(convolve, tensors, attributes) for convolve in (sepconv.separable_conv2d, tensorflows)
            )
            for name, a, b in zip(NAMES, ours, theirs, strict=True):
                found = sepconv.explain_gradients(*tensors, *attributes)[name]
                assert same(a, b), (index, name, shapes, attributes, found)


@pytest.mark.parametrize("name", ["mbv1_7", "mbv1_13", "xcep_mid", "aspp_r2", "b8_mbv1_7", "m4", "k5", "tiny"])
def test_errors_are_not_larger_than_tensorflows(name, rng):
    """Reproducible gradients, whose order is another one, beside those in float64: the root of the mean square."""
    arrays, attributes = arrays_of(name)
    upstream = rng.standard_normal(tensorflows(*arrays, **attributes).shape)

    def errors(convolve, exact=None):
        dtype = tf.float32 if exact else tf.float64
        tensors = [tf.constant(array, dtype) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = convolve(*tensors, **attributes)
        found = [g.numpy() for g in tape.gradient(output, tensors, tf.constant(upstream.astype(np.float32), dtype))]
        return [np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(found, exact, strict=True)] if exact else found

    exact = errors(tensorflows)
    ours = errors(functools.partial(sepconv.separable_conv2d, numerics="reproducible"), exact)
    theirs = errors(tensorflows, exact)
    assert all(a <= 1.5 * b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)


def test_reproducible_gradients_do_not_depend_on_the_batch():
    tensors = tensors_of("float32")
    convolve = functools.partial(sepconv.separable_conv2d, numerics="reproducible")
    before = gradient_calls()
    ours = gradients(convolve, tensors, CASES["plain"])
    assert gradient_calls() - before == 4
    alone = gradients(convolve, [tensors[0][:1], *tensors[1:]], CASES["plain"])
    assert same(ours[0][:1], alone[0])


def test_reproducible_gradients_do_not_depend_on_threads_or_on_what_is_known(rng):
    # Large enough for several threads.
    shapes = [4, 28, 28, 32], [3, 3, 32, 1], [1, 1, 32, 64]
    tensors = [tf.constant(rng.standard_normal(shape), tf.float32) for shape in shapes]
    convolve = functools.partial(sepconv.separable_conv2d, numerics="reproducible")
    specs = [tf.TensorSpec([None] * 3 + [32]), *[tf.TensorSpec(t.shape) for t in tensors[1:]]]
    unknown = tf.function(lambda *t: gradients(convolve, list(t), CASES["plain"]), input_signature=specs)
    expected = gradients(convolve, tensors, CASES["plain"])
    try:
        for threads in (1, 2, 3):
            _library.set_threads(threads)
            before = gradient_calls()
            assert all_same(unknown(*tensors), expected)
            assert all_same(gradients(convolve, tensors, CASES["plain"]), expected)
            assert gradient_calls() - before == 8
    finally:
        _library.set_threads(THREADS)


UNKNOWN = tf.TensorSpec(None), tf.TensorSpec([None, None, None, 4])  # upstream, input
SIGNATURES = {"known": (), "unknown upstream": UNKNOWN[:1], "unknown extents": UNKNOWN}


@pytest.mark.parametrize("context", ["eager", *SIGNATURES])
@pytest.mark.parametrize("numerics", ["tensorflow", "reproducible"])
def test_an_upstream_of_another_shape_is_refused(context, numerics):
    """In TensorFlow's own gradient ops a wrong rank kills the process; before any op of ours runs, too."""
    tensors = [tf.round(tensor) for tensor in tensors_of("float32")]

    ours = functools.partial(sepconv.separable_conv2d, numerics=numerics)

    def gradients(upstream, *tensors, convolve=ours):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = convolve(*tensors, *CASES["plain"])
        return tape.gradient(output, tensors, upstream)

    call, known = gradients, context in ("eager", "known")
    if context == "known":
        call = tf.function(gradients)
    elif not known:
        signature = SIGNATURES[context]
        signature += tuple(tf.TensorSpec(tensor.shape) for tensor in tensors[len(signature) - 1 :])
        call = tf.function(lambda *arguments: gradients(*arguments), input_signature=signature)
    upstream = tf.constant(np.random.default_rng(6).integers(-4, 5, [2, 9, 8, 5]), tf.float32)
    expected = gradients(upstream, *tensors, convolve=tensorflows)
    before = gradient_calls()
    for shape in ([2, 9, 7, 5], [2, 9, 8, 4], [1, 9, 8, 5], [5], [2], [], [9, 8, 5], [2, 9, 8, 5, 1]):
        with pytest.raises(ValueError if context == "known" else tf.errors.InvalidArgumentError) as refused:
            call(tf.ones(shape), *tensors)
        said = re.sub(r"[^\w ]", "", str(refused.value))
        numbers = [" ".join(map(str, extents)) for extents in ([2, 9, 8, 5], shape)]
        assert "upstream must have the results shape {} got {}".format(*numbers) in said, (shape, refused.value)
    assert gradient_calls() == before
    assert all_same(call(upstream, *tensors), expected)  # of small integers: sums are exact in any order


def test_in_several_threads():
    """At once, of two shapes."""
    x, *filters = tensors_of("float32")
    cases = [[x[:batch], *filters] for batch in (1, 2, 1, 2)]
    expected = [gradients(tensorflows, tensors, CASES["plain"]) for tensors in cases]
    found = [sepconv.explain_gradients(*tensors, *CASES["plain"]) for tensors in cases]
    before = gradient_calls()
    with concurrent.futures.ThreadPoolExecutor(len(cases)) as threads:
        futures = [
            threads.submit(gradients, sepconv.separable_conv2d, tensors, CASES["plain"])
            for _ in range(10)
            for tensors in cases
        ]
    assert all(all_same(future.result(), expected[n % len(cases)]) for n, future in enumerate(futures))
    assert gradient_calls() - before == 10 * sum(map(ops_of, found))


def test_unknown_extents():
    tensors, attributes = tensors_of("float32"), CASES["plain"]
    specs = [tf.TensorSpec([None, None, None, 4]), *[tf.TensorSpec(t.shape) for t in tensors[1:]]]
    function = tf.function(lambda *t: gradients(sepconv.separable_conv2d, list(t), attributes), input_signature=specs)
    assert all_same(function(*tensors), gradients(tensorflows, tensors, attributes))


EMPTY = {
    "batch": ([0, 9, 8, 4], "SAME", 5),
    "image": ([2, 0, 8, 4], "SAME", 5),
    "result": ([2, 2, 8, 4], "VALID", 5),
    "out_channels": ([2, 9, 8, 4], "SAME", 0),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("empty", EMPTY)
def test_of_an_empty_result_they_are_zeros(empty, dtype):
    """Where TensorFlow leaves some as the memory was, and refuses others; the second ones too. A layer that is left to
    TensorFlow altogether, as 2.16's of 16 bits and unknown shape, has TensorFlow's gradients."""
    image, padding, out_channels = EMPTY[empty]
    tensors = [tf.ones(shape, dtype) for shape in (image, [3, 3, 4, 2], [1, 1, 8, out_channels])]
    attributes = [1, 1, 1, 1], padding

    def both(*tensors):
        return [f(sepconv.separable_conv2d, list(tensors), attributes) for f in (gradients, second)]

    specs = [tf.TensorSpec([None, *image[1:]], dtype), *map(tf.TensorSpec.from_tensor, tensors[1:])]
    unknown = tf.function(both, input_signature=specs)
    unknown(tf.ones([3, *image[1:]], dtype), *tensors[1:])  # something that the memory may hold
    ours = sepconv.explain(*specs, *attributes).path == "op"
    assert ours or dtype in ("float16", "bfloat16") and not tf.__version__.startswith("2.21.")
    for call in (both, tf.function(both), unknown) if ours else (both, tf.function(both)):
        for found in call(*tensors):
            assert all_same(found, [tf.zeros_like(tensor) for tensor in tensors])


def test_of_an_empty_batch_through_steps(rng):
    filters = [tf.Variable(rng.standard_normal(s), dtype=tf.float32) for s in ([3, 3, 4, 2], [1, 1, 8, 5], [5])]

    def convolve(x):
        return tf.nn.relu(tensorflows(x, *filters[:2], [1, 1, 1, 1], "SAME") + filters[2])

    concrete = tf.function(convolve).get_concrete_function(tf.TensorSpec([None, 9, 8, 4]))
    rewritten = sepconv.rewrite(concrete)
    [layer] = rewritten.report.replaced
    assert layer.pointwise_steps

    def found(batch):
        with tf.GradientTape() as tape:
            y = rewritten.model(tf.ones([batch, 9, 8, 4]))
        return tape.gradient(y, filters)

    assert all(np.any(gradient) for gradient in found(2))
    assert all_same(found(0), [tf.zeros_like(filter) for filter in filters])


def test_only_what_was_asked_for():
    tensors = tensors_of("float32")
    wanted = {1: 2, 2: 1}  # the depthwise filter's takes up the depthwise result's
    for number, ops in wanted.items():
        with tf.GradientTape() as tape:
            tape.watch(tensors[number])
            output = sepconv.separable_conv2d(*tensors, *CASES["plain"], numerics="reproducible")
        before = gradient_calls()
        assert tape.gradient(output, tensors[number]) is not None
        assert gradient_calls() - before == ops


@pytest.mark.parametrize("case", [([1, 1, 2, 1], "SAME", None, None), ([1, 2, 1, 1], "VALID", None, [1, 2])])
@pytest.mark.parametrize("context", [lambda f: f, tf.function], ids=["eager", "function"])
def test_unequal_strides_have_gradients_in_every_mode(case, context):
    """Among the results of stride 1, which TensorFlow's kernels take in every mode, stand those of other strides."""
    tensors = [tf.round(tensor * 8) for tensor in tensors_of("float64")]  # small integers: sums are exact in any order
    strides, padding, _, rate = case
    ours = context(lambda: gradients(sepconv.separable_conv2d, tensors, case))()

    def everywhere(input, *filters_and_rest):
        if padding == "SAME":  # 8 wide, 3 wide filter, stride 2: one zero behind; stride 1: one before as well
            input = tf.pad(input, [(0, 0), (1, 1), (0, 1), (0, 0)])
        if rate is None:
            return tensorflows(input, *filters_and_rest[:2], [1, 1, 1, 1], "VALID")[:, :: strides[1], :: strides[2]]
        # In TensorFlow's meaning a stride counts within each of the `rate` smaller images.
        parts = [tensorflows(input[:, :, i::2], *filters_and_rest[:2], [1, 1, 1, 1], "VALID")[:, ::2] for i in (0, 1)]
        return tf.reshape(tf.stack(parts, axis=3), [2, 4, 4, 5])

    assert all_same(ours, gradients(everywhere, tensors, case))
