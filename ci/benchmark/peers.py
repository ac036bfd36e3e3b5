"""A process with a peer in it, set up as that peer is fastest: whole calls with input and output in place.

`python -m benchmark.peers litert|onnxruntime|openvino THREADS`. Models come from `benchmark.models`. Arrays are f32 and
lie as each peer is fastest with: NCHW for ONNX Runtime, NHWC for the two others.
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
    batch, height, width, channels = shape.output
    output = np.zeros((batch, channels, height, width), np.float32)
    held = [ort.OrtValue.ortvalue_from_numpy(array) for array in (to_nchw(input), output)]
    binding = session.io_binding()
    binding.bind_ortvalue_input("input", held[0])
    binding.bind_ortvalue_output("output", held[1])
    return lambda: session.run_with_iobinding(binding), lambda: held[1].numpy().transpose(0, 2, 3, 1)


def openvino(threads, data, shape, input):
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    core = ov.Core()
    # Handed NHWC, it is up to three times as fast as with NCHW arrays: its own kernels want channels last.
    layouts = PrePostProcessor(core.read_model(data / "model.onnx"))
    for side in (layouts.input(), layouts.output()):
        side.tensor().set_layout(ov.Layout("NHWC"))
        side.model().set_layout(ov.Layout("NCHW"))
    # Where the processor has bf16, OpenVINO would choose it on its own.
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(layouts.build(), "CPU", properties).create_infer_request()
    held = [ov.Tensor(array, shared_memory=True) for array in (input, np.zeros(shape.output, np.float32))]
    request.set_input_tensor(held[0])
    request.set_output_tensor(held[1])
    return lambda: request.infer(share_outputs=True), lambda: held[1].data  # not sharing would copy the output


def to_nchw(array):
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


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
