"""TensorFlow still does what the register of deviations says, in this process's mode and every context; and so do we.

TensorFlow is asked in child processes, as it dies of some calls. `crates/sepconv-conformance/tests/deviations.rs` asks
the same of graphs built without Python, and whether the register is complete.
"""

import json

import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN
from fresh import attempt
from helpers import CASES, REGISTER, ones

CONTEXTS = ("eager", "graph", "unknown shapes")
# Answers to argv's cases and contexts, a line of JSON each.
OBSERVE = """
import json, sys
import tensorflow as tf
from helpers import CASES, ones, tensorflows

for case, context in json.loads(sys.argv[1]):
    tensors, attributes = ones(CASES[case])
    function = lambda *tensors: tensorflows(*tensors, **attributes)
    if context == "graph":
        function = tf.function(function)
    elif context == "unknown shapes":
        function = tf.function(function, input_signature=[tf.TensorSpec(None, t.dtype) for t in tensors])
    try:
        result = function(*tensors)
        answer = {"shape": result.shape.as_list(), "values": sorted(set(result.numpy().ravel().tolist()))}
    except Exception as error:
        answer = {"error": type(error).__name__}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def observed():
    """What TensorFlow answers to every case of the register, by case and context."""
    asked = [(case, context) for case in REGISTER for context in CONTEXTS]
    answers = []
    while len(answers) < len(asked):
        ended = attempt(OBSERVE, json.dumps(asked[len(answers) :]))
        answers += map(json.loads, ended.output.splitlines())
        if ended.status < 0:
            answers.append({"process_died": ended.status})
        else:
            assert len(answers) == len(asked), ended.errors[-4000:]
    return dict(zip(asked, answers, strict=True))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("case", REGISTER)
def test_tensorflow_still_does_what_the_register_says(case, context, observed):
    recorded = CASES[case]["tensorflow"][f"{context}, oneDNN {'on' if ONEDNN else 'off'}"]
    recorded = {key: value for key, value in recorded.items() if key not in ("dtype", "message")}
    answer = observed[case, context]
    if "values" not in recorded:  # accidental, or there are none
        answer = {key: value for key, value in answer.items() if key != "values"}
    assert answer == recorded


@pytest.mark.parametrize("numerics", ["tensorflow", "reproducible"])
@pytest.mark.parametrize("context", ["eager", "graph"])
@pytest.mark.parametrize("case", REGISTER)
def test_sepconv_does_what_the_register_says(case, context, numerics):
    tensors, attributes = ones(CASES[case])
    answer = REGISTER[case]["answer"]

    def function(*tensors):
        return sepconv.separable_conv2d(*tensors, **attributes, numerics=numerics)

    if context == "graph":
        function = tf.function(function)
    if "error" in answer:
        refusal = getattr(tf.errors, answer["error"]) if context == "eager" else ValueError
        with pytest.raises(refusal):
            function(*tensors)
        return
    result = function(*tensors)
    assert result.shape == answer["shape"]
    assert sorted(set(result.numpy().ravel())) == answer.get("values", [])


def test_a_filter_of_unknown_shape_is_dilated():
    """`rate2_same`, whose row is about graphs that do not know the filter's shape."""
    tensors, attributes = ones(CASES["rate2_same"])
    unknown = [tf.TensorSpec([None] * 4, t.dtype) for t in tensors]
    function = tf.function(lambda *tensors: sepconv.separable_conv2d(*tensors, **attributes), input_signature=unknown)
    assert function(*tensors).shape == REGISTER["rate2_same"]["answer"]["shape"]
