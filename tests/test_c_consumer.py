"""A C program without Python loads the library, runs a saved model and gets the same bits."""

import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import THREADS
from helpers import HERE, same, tensorflows
from tensorflow.core.protobuf import saved_model_pb2

pytestmark = pytest.mark.skipif(THREADS > 1, reason="the number of threads cannot matter to a program that is not told")
ATTRIBUTES = {"strides": [1, 2, 2, 1], "padding": "SAME", "dilations": [2, 1]}


@pytest.fixture(scope="module")
def consumer(tmp_path_factory):
    """The program, linked with the two libraries of TensorFlow's package."""
    program, package = tmp_path_factory.mktemp("consumer") / "consumer", tf.sysconfig.get_lib()
    libraries = [f"{package}/libtensorflow_{name}.so.2" for name in ("cc", "framework")]
    command = ["cc", "-std=c11", "-Wall", "-Werror", "-I", tf.sysconfig.get_include(), HERE / "consumer.c", *libraries]
    if shutil.which("ld.gold"):  # others take up to half a minute over libraries of this size
        command.append("-fuse-ld=gold")
    subprocess.run([*command, f"-Wl,-rpath,{package}", "-ldl", "-o", program], check=True)
    return program


@pytest.fixture
def saved(tmp_path: pathlib.Path, rng):
    """A saved model's folder, its input's and output's names, its input, and TensorFlow's own result."""
    x, *filters = (rng.standard_normal(s, dtype=np.float32) for s in ([2, 9, 8, 6], [3, 3, 6, 2], [1, 1, 12, 16]))
    model, variables = tf.Module(), [tf.Variable(filter) for filter in filters]
    model.filters = variables
    model.convolve = tf.function(
        lambda x: {"y": sepconv.separable_conv2d(x, *variables, **ATTRIBUTES)},
        input_signature=[tf.TensorSpec(x.shape, name="x")],
    )
    tf.saved_model.save(model, str(tmp_path), model.convolve)
    [graph] = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes()).meta_graphs
    signature = graph.signature_def["serving_default"]
    names = signature.inputs["x"].name, signature.outputs["y"].name
    return tmp_path, *names, x, tensorflows(x, *filters, **ATTRIBUTES)


def run(consumer, library, saved):
    folder, input, output, x, _ = saved
    command = [consumer, library, folder, input, output, *map(str, x.shape)]
    return subprocess.run(command, input=x.tobytes(), capture_output=True, timeout=120)


def test_the_same_bits_without_python(consumer, saved):
    ended, expected = run(consumer, sepconv.library_path(), saved), saved[-1]
    assert ended.returncode == 0, ended.stderr[-2000:].decode()
    assert same(np.frombuffer(ended.stdout, np.float32).reshape(expected.shape), expected)
    assert json.loads(ended.stderr.splitlines()[-1])["kernel_calls"] == 1


def test_what_is_missing_is_named(consumer, saved, tmp_path):
    """As in any program that has TensorFlow's own ops only, such as TensorFlow Serving's."""
    for library, message in (("", "'Sepconv>SeparableConv2D'"), (str(tmp_path / "none.so"), "none.so")):
        ended = run(consumer, library, saved)
        assert ended.returncode == 1 and not ended.stdout
        assert message in ended.stderr.decode().splitlines()[-1]
