"""A process with TensorFlow in it: layers and networks in graphs, by our op or by TensorFlow's own, eager calls, and
whole models, rewritten or as they are.

`python -m benchmark.graphs op|tensorflow THREADS`. A layer is measured in a chain: every link takes the same input, but
only once the link before is through (its input waits for a number out of the other's output), and the sum of these
numbers is the result. So no link can be left out, none runs beside another, and the cost of the call from Python is
shared by all. Filters differ from link to link, as in a network.
"""

import gc
import sys

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from benchmark import shapes
from benchmark.serving import serve, timed

FUNCTIONS = ("op", "tensorflow")
OURS = "Sepconv>SeparableConv2D"


class Graphs:
    def __init__(self, which, threads):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.call = self.layer = self.links = None
        self.original = None  # keeps a model's variables
        self.function = tf.nn.separable_conv2d
        self.ours = which == "op"
        if self.ours:
            import sepconv

            self.function, self.explain = sepconv.separable_conv2d, sepconv.explain
            self.kernel_calls = lambda: sepconv.stats()["kernel_calls"]

    def prepare(self, shape, dtype, data, links, filters, training=False):
        """A chain of that many links; of all gradients too for training."""
        self.call = self.layer = None
        gc.collect()  # a graph with constants is large and refers to itself
        shape = shapes.from_request(shape)
        input, *filter_arrays = [array.astype(tf.as_dtype(dtype).as_numpy_dtype) for array in shapes.read(data, shape)]
        make = tf.constant if filters == "constant" else tf.Variable
        scaled = [[(array * array.dtype.type(1 + i / 64)) for array in filter_arrays] for i in range(links)]
        held = scaled if filters == "constant" else [[make(array) for array in pair] for pair in scaled]

        @tf.function(autograph=False)
        def chain(x):
            numbers = []
            for pair in held:
                with tf.control_dependencies(numbers[-1:]):
                    link_input = tf.identity(x)
                numbers.append(number_of(link_input, *map(tf.convert_to_tensor, pair)))
            return tf.add_n(numbers)

        def number_of(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                output = self.function(*tensors, **shape.attributes)
            if not training:
                return output[0, 0, 0, 0]
            # As in training, nothing of the gradients is computed before what it is the gradient of.
            with tf.control_dependencies([output]):
                upstream = tf.identity(given)
            # A sum of everything, so that nothing can be left out.
            results = [output, *tape.gradient(output, tensors, upstream)]
            return tf.add_n([result[0, 0, 0, 0] for result in results])

        input, given = tf.constant(input), tf.constant(np.random.default_rng(1).standard_normal(shape.output), dtype)
        if self.ours:
            explanation = self.explain(input, *filter_arrays, **shape.attributes)
            if explanation.path != "op":
                raise RuntimeError(f"left to TensorFlow's own ops: {explanation.reason}")
        compiled = chain.get_concrete_function(tf.TensorSpec(input.shape, input.dtype))
        self.call, self.links = (lambda: compiled(input)), links
        self.layer = lambda: self.function(input, *map(tf.constant, filter_arrays), **shape.attributes)
        # Beside the convolution's own, TensorFlow has two gradients of either kind.
        return self._checked(3 if training and not self.ours else 1)

    def network(self, layers):
        """The layers behind each other, `[shape, stride of the pooling behind it]` each."""
        self.call = self.layer = None
        gc.collect()  # a graph with constants is large and refers to itself
        layers = [(shapes.from_request(shape), pooling) for shape, pooling in layers]
        filters = [list(shapes.arrays(shape).values())[1:] for shape, _ in layers]

        @tf.function(autograph=False)
        def chain(x):
            for (shape, pooling), pair in zip(layers, filters, strict=True):
                x = self.function(x, *map(tf.constant, pair), **shape.attributes)
                x = x[:, ::pooling, ::pooling] if pooling > 1 else x
            return x

        input = tf.constant(shapes.arrays(layers[0][0])["input"])
        compiled = chain.get_concrete_function(tf.TensorSpec(input.shape, input.dtype))
        self.call, self.links = (lambda: compiled(input)), len(layers)
        ran = self._ran()
        return {"ran": ran.get(OURS, min(ran.values()))}

    def model(self, name, batch, input):
        """One of Keras's models, filters in variables: as it is, or rewritten."""
        from benchmark import architectures  # Keras takes seconds

        self.call = self.layer = None
        gc.collect()
        self.original = function = architectures.function_of(architectures.build(name, tuple(input)), batch)
        counts = {}
        if self.ours:
            import sepconv

            rewritten = sepconv.rewrite(function)
            function, report = rewritten.model, rewritten.report
            counts = {"replaced": len(report.replaced), "layers": len(report.layers)}
        [spec] = function.structured_input_signature[0]
        image = tf.constant(np.random.default_rng(1).standard_normal(spec.shape, np.float32))
        self.call, self.links = (lambda: function(image)), 1
        self.layer = lambda: self.call()["logits"]
        self.call()
        self.call()
        return counts

    def _checked(self, each):
        """Fails unless every link of the graph really runs, so many ops of each kind for each call."""
        ran = self._ran()
        if set(ran.values()) != {self.links * each}:
            raise RuntimeError(f"{self.links} links were built, and what runs is {ran}")
        return {"ran": self.links}

    def _ran(self):
        """Runs the graph for the first and a second time; how many ops of each kind were at work in one of them: our
        kernels as the library counts them, TensorFlow's as they stand in its optimised graph."""
        collecting = context.context()
        collecting.enable_graph_collection()
        self.call()
        graphs = collecting.export_run_metadata().partition_graphs
        collecting.disable_graph_collection()
        if self.ours:
            before = self.kernel_calls()
            self.call()
            return {OURS: self.kernel_calls() - before}
        self.call()
        kinds = [node.op for graph in graphs for node in graph.node]
        kinds += [node.op for graph in graphs for function in graph.library.function for node in function.node_def]
        depthwise = sum("Depthwise" in kind for kind in kinds)
        return {"depthwise": depthwise, "1x1": sum("Conv2D" in kind and "Depthwise" not in kind for kind in kinds)}

    def measure(self, seconds, calls):
        """Seconds of a link."""
        return {"seconds": [each / self.links for each in timed(self.call, seconds, calls)["seconds"]]}

    def result(self, path):
        """One layer on its own, eagerly."""
        self.layer().numpy().astype(np.float32).tofile(path)

    def eager(self, shape, data, rounds, seconds):
        """Times of eager calls: TensorFlow's function, ours, and the bare op as the function would call it."""
        import sepconv

        shape = shapes.from_request(shape)
        tensors = [tf.constant(array) for array in shapes.read(data, shape)]
        attributes = shape.attributes
        functions = {
            "tensorflow": lambda: tf.nn.separable_conv2d(*tensors, **attributes),
            "sepconv": lambda: sepconv.separable_conv2d(*tensors, **attributes),
            "bare": bare_op(tensors, attributes),
        }
        times = {name: [] for name in functions}
        for function in functions.values():
            timed(function, 0.1, 20)
        for _ in range(rounds):
            for name, function in functions.items():
                times[name] += timed(function, seconds, 20)["seconds"]
        return {"seconds": {name: float(np.median(each)) for name, each in times.items()}}


def bare_op(tensors, attributes):
    """The op alone with all that it needs at hand: read off a graph that `sepconv.separable_conv2d` builds."""
    import sepconv

    built = tf.function(lambda *inputs: sepconv.separable_conv2d(*inputs, **attributes), autograph=False)
    graph = built.get_concrete_function(*tensors).graph
    (node,) = [operation for operation in graph.get_operations() if operation.type == OURS]
    more = [tf.zeros(tensor.shape, tensor.dtype) for tensor in node.inputs[len(tensors) :]]
    named = {name: node.get_attr(name) for name in node.node_def.attr if name != "T" and not name.startswith("_")}
    op = tf.load_op_library(sepconv.library_path()).sepconv_separable_conv2d
    return lambda: op(*tensors, *more, **named)


def main():
    which, threads = sys.argv[1:]
    if which not in FUNCTIONS:
        sys.exit(f"graphs: error: {which!r} is not one of {', '.join(FUNCTIONS)}")
    graphs = Graphs(which, int(threads))
    names = ("prepare", "network", "model", "measure", "result", "eager")
    serve({name: getattr(graphs, name) for name in names})


if __name__ == "__main__":
    main()
