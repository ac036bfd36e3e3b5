"""One mode of TensorFlow for the whole process: `TF_ENABLE_ONEDNN_OPTS` and `SEPCONV_TEST_THREADS` (default 1)."""

import functools
import os
import pathlib
import sys

# TensorFlow's own default depends on the processor.
ONEDNN = os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1") != "0"

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

THREADS = int(os.environ.get("SEPCONV_TEST_THREADS", "1"))
# oneDNN can be told to do without.
AVX512 = "avx512f" in pathlib.Path("/proc/cpuinfo").read_text() and os.environ.get(
    "ONEDNN_MAX_CPU_ISA", "AVX512"
).upper().startswith("AVX512")
# Of the modes that `tf.nn.separable_conv2d` has bits in, those that are promised.
PROMISED = pytest.mark.skipif(not ONEDNN and THREADS > 1, reason="promised with oneDNN, and without on 1 thread")
SEED = int(os.environ.get("SEPCONV_SEED", "20261125"))

# Where the package of ci/bench lies.
CI = pathlib.Path(__file__).parents[1] / "ci"
sys.path.append(str(CI))

tf.config.threading.set_intra_op_parallelism_threads(THREADS)


def pytest_report_header():
    return f"TensorFlow {tf.__version__}, oneDNN {'on' if ONEDNN else 'off'}, {THREADS} thread(s), seed {SEED}"


@pytest.fixture
def rng(request):
    """Random numbers of the test's own, from the session's seed."""
    return np.random.default_rng([SEED, *request.node.name.encode()])


@pytest.fixture
def arrays(rng):
    """The small input and its filters, of the test's own random numbers."""
    from helpers import small

    return small(rng=rng)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """For models that the tests of one file share."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def consumer(tmp_path_factory):
    """`consumer.run` of a program that is built once."""
    import consumer

    program = tmp_path_factory.mktemp("consumer") / "consumer"
    consumer.build(program)
    return functools.partial(consumer.run, program)
