"""A process with a peer in it, set up as that peer is fastest: whole calls with input and output in place.

`python -m benchmark.peers litert|onnxruntime|openvino THREADS`. Models come from `benchmark.models`; ONNX Runtime and
OpenVINO get the layout that is their own, NCHW, all in f32.
"""

import sys
from pathlib import Path

import numpy as np

from benchmark import shapes
from benchmark.serving import serve, timed


def litert(threads, data, shape, input):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(data / "model.tflite"), num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], input)
    output = interpreter.get_output_details()[0]["index"]
    return interpreter.invoke, lambda: interpreter.get_tensor(output)


def onnxruntime(threads, data, shape, input):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(data / "model.onnx", options, providers=["CPUExecutionProvider"])
    held = [ort.OrtValue.ortvalue_from_numpy(array) for array in (to_nchw(input), empty_nchw(shape))]
    binding = session.io_binding()
    binding.bind_ortvalue_input("input", held[0])
    binding.bind_ortvalue_output("output", held[1])
    return lambda: session.run_with_iobinding(binding), lambda: to_nhwc(held[1].numpy())


def openvino(threads, data, shape, input):
    import openvino as ov

    # Where the processor has bf16, OpenVINO would choose it on its own.
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = ov.Core().compile_model(str(data / "model.onnx"), "CPU", properties)
    held = [ov.Tensor(array, shared_memory=True) for array in (to_nchw(input), empty_nchw(shape))]
    request = model.create_infer_request()
    request.set_input_tensor(held[0])
    request.set_output_tensor(held[1])

    def call():
        request.start_async()  # `infer` would copy the output
        request.wait()

    return call, lambda: to_nhwc(held[1].data)


def to_nchw(array):
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def to_nhwc(array):
    return array.transpose(0, 2, 3, 1)


def empty_nchw(shape):
    batch, height, width, channels = shape.output
    return np.zeros((batch, channels, height, width), np.float32)


PEERS = {"litert": litert, "onnxruntime": onnxruntime, "openvino": openvino}


class Peer:
    def __init__(self, name, threads):
        self.make, self.threads = PEERS[name], threads
        self.call = self.output = None

    def prepare(self, shape, data, dtype="float32", **_):
        if dtype != "float32":
            raise ValueError(f"dtype must be float32 here, got {dtype}")
        self.call = self.output = None
        shape = shapes.from_request(shape)
        input = shapes.read(data, shape)[0]
        self.call, self.output = self.make(self.threads, Path(data), shape, input)
        self.call()

    def measure(self, seconds, calls):
        self.call()  # others ran since the last
        return timed(self.call, seconds, calls)

    def result(self, path):
        self.call()
        np.ascontiguousarray(self.output(), np.float32).tofile(path)


def main():
    name, threads = sys.argv[1:]
    if name not in PEERS:
        sys.exit(f"peers: error: {name!r} is not one of {', '.join(PEERS)}")
    peer = Peer(name, int(threads))
    serve({"prepare": peer.prepare, "measure": peer.measure, "result": peer.result})


if __name__ == "__main__":
    main()
