"""The program without Python that loads the library and runs a saved model (`consumer.c`): its build, its results."""

import json
import os
import shutil
import subprocess

import numpy as np
import tensorflow as tf
from helpers import HERE
from tensorflow.core.protobuf import saved_model_pb2


def build(program) -> None:
    """Linked with the two libraries of TensorFlow's package."""
    package = tf.sysconfig.get_lib()
    libraries = [f"{package}/libtensorflow_{name}.so.2" for name in ("cc", "framework")]
    command = ["cc", "-std=c11", "-Wall", "-Werror", "-I", tf.sysconfig.get_include(), HERE / "consumer.c", *libraries]
    if shutil.which("ld.gold"):  # others take up to half a minute over libraries of this size
        command.append("-fuse-ld=gold")
    subprocess.run([*command, f"-Wl,-rpath,{package}", "-ldl", "-o", program], check=True)


def run(program, library, folder, name, x, **environment) -> subprocess.CompletedProcess:
    """The model's signature of that name, which has one input and one output; `library` is "" for none."""
    [graph] = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs
    signature = graph.signature_def[name]
    [input], [output] = signature.inputs.values(), signature.outputs.values()
    command = [program, library, folder, input.name, output.name, *map(str, x.shape)]
    environment = os.environ | environment
    return subprocess.run(command, input=x.tobytes(), env=environment, capture_output=True, timeout=120)


def results(ended) -> tuple:
    """The numbers that it gave, and what the library counted, if there was one."""
    assert ended.returncode == 0, ended.stderr[-2000:].decode()
    last = ended.stderr.splitlines()[-1:]
    stats = json.loads(last[0]) if last and last[0].startswith(b"{") else None
    return np.frombuffer(ended.stdout, np.float32), stats
