"""Takes every time of a run. Contenders are measured in turn, round by round, so that all see the same machine; what is
kept of a contender is the median over the calls of all rounds. Gives plain values that `report.json` can hold."""

import math
import shutil
import statistics
import time
from pathlib import Path

import numpy as np

from benchmark import shapes
from benchmark.contender import KINDS, PYTHON, WORKER, Contender, Failed, Process

TOLERANCE = 1e-4  # of the largest value: f32 sums of at most some thousand products, in whatever order
DTYPES = ("float64", "float16", "bfloat16")
# What stands for a dtype where forward pass and all gradients are measured together, in float32; on which layers.
TRAINING = "training"
TRAINED = ("mbv1_1", "mbv1_2s2", "mbv1_3", "mbv1_7", "xcep_mid", "aspp_r2", "b32_cifar")
# So few links have chains with gradients, which take long, and of other dtypes than float32 where the filters of more
# fill so many bytes, of which TensorFlow keeps several copies.
FEW_LINKS, FILTER_BYTES = 8, 64 << 20
LEAST_CALLS = 3


def medians(times):
    return {"seconds": statistics.median(times), "best": min(times), "calls": len(times)}


def most_links(shape, dtype):
    """Of a chain."""
    filters = 8 * (math.prod(shape.depthwise_filter) + math.prod(shape.pointwise_filter))
    few = FEW_LINKS if dtype == TRAINING else max(FEW_LINKS, FILTER_BYTES // filters)
    return math.inf if dtype == "float32" else few


class Measuring:
    """One run with its processes, which are gone when the context is left."""

    def __init__(self, options, folder, tick):
        self.options, self.folder, self.tick = options, Path(folder), tick
        self.contenders = [
            Contender(KINDS[name], threads, folder) for threads in options.threads for name in options.contenders
        ]
        self.models = Process([*PYTHON, "benchmark.models"], folder)
        self.machines = {threads: Process([WORKER, threads, "once"], folder) for threads in options.threads}
        self.more = []
        self.instructions = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [*self.contenders, self.models, *self.machines.values(), *self.more]:
            process.stop()

    def steps(self):
        """How many ticks the whole takes."""
        options, left_out = self.options, self.options.leave_out
        if options.models:
            return len(options.models) * len(options.batches) * (options.rounds + 1)
        layers = len(options.shapes) * (options.rounds + 1)
        dtypes = 0 if "dtypes" in left_out else len(DTYPES) * layers
        training = 0 if "training" in left_out else len(self.trained()) * (options.rounds + 1)
        networks = 0 if "networks" in left_out else len(shapes.NETWORKS) * (options.rounds + 1)
        return (
            layers
            + dtypes
            + training
            + networks
            + ("eager" not in left_out)
            + len(options.shapes) * ("first" not in left_out)
        )

    def run(self):
        options, left_out = self.options, self.options.leave_out
        measured = {"layers": [], "machine": []}
        if options.models:
            rows = [row for name in options.models for batch in options.batches for row in self.model(name, batch)]
            return measured | {"models": rows, "instructions": None}
        for name in options.shapes:
            self.layer(shapes.SHAPES[name], measured)
        if "first" not in left_out:
            measured["first_calls"] = self.first_calls()
        if "eager" not in left_out:
            measured["eager"] = self.eager()
        if "networks" not in left_out:
            self.restart()  # what ran before decides which of its ways TensorFlow goes
            measured["networks"] = [row for name in shapes.NETWORKS for row in self.network(name)]
        if "training" not in left_out:
            self.restart()
            for name in self.trained():
                self.layer(shapes.SHAPES[name], measured, TRAINING)
        if "dtypes" not in left_out:
            for dtype in DTYPES:
                self.restart()
                for name in options.shapes:
                    self.layer(shapes.SHAPES[name], measured, dtype)
        return measured | {"instructions": self.instructions}

    def trained(self):
        return [name for name in self.options.shapes if name in TRAINED]

    def restart(self):
        """Fresh processes for whatever comes next."""
        for contender in self.contenders:
            contender.stop()

    # Layers

    def layer(self, shape, measured, dtype="float32"):
        """All contenders on one shape; rows go into `measured`, the machine's limits of that moment too."""
        self.tick(f"{shape.name} {dtype}: preparing", 0)
        folder = self.folder / shape.name
        folder.mkdir(exist_ok=True)
        arrays = shapes.arrays(shape)
        shapes.write(folder, arrays)
        plain = dtype == "float32"
        contenders = self.contenders if plain else [c for c in self.contenders if c.kind.name in ("op", "tensorflow")]
        training = dtype == TRAINING
        common = {"do": "prepare", "shape": shape.request(), "dtype": "float32" if training else dtype}
        common |= {"data": str(folder)} | ({"training": True} if training else {})
        failed = self.prepare_models(contenders, shape, folder) if plain else {}
        links = min(self.options.links, most_links(shape, dtype))
        asked = []
        for contender in contenders:
            if contender not in failed:
                filters = "variable" if training else self.options.filters
                chained = {"links": links, "filters": filters} if contender.kind.chained else {}
                contender.send(**common, **chained)
                asked.append(contender)
        for contender in asked:
            try:
                contender.receive()
            except Failed as error:
                failed[contender] = str(error)
        self.tick(f"{shape.name} {dtype}", 1)
        times, limits = self.rounds(f"{shape.name} {dtype}", contenders, failed, plain)
        differences = self.check(shape, arrays, contenders, failed, folder) if plain else {}
        shutil.rmtree(folder)

        for contender in contenders:
            row = {"shape": shape.name, "dtype": dtype, "threads": contender.threads, "contender": contender.kind.name}
            if contender in failed:
                row["error"] = failed[contender]
            else:
                row |= medians(times[contender])
            measured["layers"].append(row | differences.get(contender, {}))
        for threads, readings in limits.items():
            measured["machine"].append({"shape": shape.name, "threads": threads, **readings})

    def prepare_models(self, contenders, shape, folder):
        """The files that the peers read; gives whose file could not be made, and why."""
        failed, needs = {}, {"tflite": ["litert"], "onnx": ["onnxruntime", "openvino"]}
        for what, names in needs.items():
            needing = [contender for contender in contenders if contender.kind.name in names]
            if needing:
                try:
                    self.models.ask(do=what, shape=shape.request(), data=str(folder))
                except Failed as error:
                    failed |= {contender: f"no {what} model: {error}" for contender in needing}
        return failed

    def rounds(self, what, contenders, failed, with_machine):
        """Every contender in every round, in alternating direction; those that fail drop out into `failed`."""
        times = {contender: [] for contender in contenders}
        limits = {threads: {"float32": [], "float64": [], "copy": []} for threads in self.machines}
        with_machine = with_machine and "machine" not in self.options.leave_out
        for number in range(self.options.rounds):
            if with_machine:
                self.read_machine(limits)
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                if contender in failed:
                    continue
                calls = 1 if contender.kind.chained else LEAST_CALLS
                try:
                    answer = contender.ask(do="measure", seconds=self.options.seconds, calls=calls)
                    times[contender] += answer["seconds"]
                except Failed as error:
                    failed[contender] = str(error)
                time.sleep(self.options.pause)  # the pools of some go on spinning for a while
            self.tick(what, 1)
        if not with_machine:
            return times, {}
        return times, {
            threads: {kind: {"median": statistics.median(each), "best": max(each)} for kind, each in readings.items()}
            for threads, readings in limits.items()
        }

    def read_machine(self, limits):
        """Adds to the readings for each number of threads; without those whose process fails."""
        for threads, readings in list(limits.items()):
            try:
                answer = self.machines[threads].ask(do="machine", seconds=self.options.seconds / 5)
            except Failed:
                del limits[threads]
                continue
            self.instructions = answer["instructions"]
            for kind, each in readings.items():
                each += answer[kind]

    def check(self, shape, arrays, contenders, failed, folder):
        """Whether each computes what it should; and whether the op's bits are those of TensorFlow's eager call. After
        the measuring: an eager call would leave its preparations to TensorFlow's graphs."""
        wanted = shapes.expected(shape, arrays)
        results, differences = {}, {}
        for contender in contenders:
            if contender in failed:
                continue
            path = folder / "result"
            try:
                contender.ask(do="result", path=str(path))
            except Failed as error:
                failed[contender] = str(error)
                continue
            results[contender] = np.fromfile(path, np.float32)
            difference = shapes.difference(results[contender], wanted)
            differences[contender] = {"difference": difference}
            if difference is None or not difference <= TOLERANCE:
                found = "another shape" if difference is None else f"off by {difference:.1e} of the largest value"
                failed[contender] = f"wrong result: {found}, the limit is {TOLERANCE:.0e}"
        for contender, result in results.items():
            theirs = [c for c in results if (c.kind.name, c.threads) == ("tensorflow", contender.threads)]
            if contender.kind.name == "op" and theirs:
                same = result.view(np.uint32) == results[theirs[0]].view(np.uint32)
                differences[contender]["differing_bits"] = int(np.count_nonzero(~same))
        return differences

    # What else is measured

    def network(self, name):
        """A whole network, by the op and by TensorFlow."""
        self.tick(f"{name}: preparing", 0)
        layers = [(shape.request(), pooling) for shape, pooling in shapes.NETWORKS[name]]
        contenders = [contender for contender in self.contenders if contender.kind.name in ("op", "tensorflow")]
        failed, ran = {}, {}
        for contender in contenders:
            contender.send(do="network", layers=layers)
        for contender in contenders:
            try:
                ran[contender] = contender.receive()["ran"]
            except Failed as error:
                failed[contender] = str(error)
        self.tick(name, 1)
        times, _ = self.rounds(name, contenders, failed, False)
        for contender in contenders:
            row = {"network": name, "threads": contender.threads, "contender": contender.kind.name}
            if contender in failed:
                yield row | {"error": failed[contender]}
            else:
                found = medians(times[contender])
                row |= found | {key: found[key] * len(layers) for key in ("seconds", "best")}
                yield row | {"layers": len(layers), "ran": ran[contender]}

    def model(self, name, batch):
        """A whole model, as it is and rewritten: each in a process of its own, which has run nothing else, for what ran
        before decides which of its ways TensorFlow goes."""
        what = f"{name}, batch {batch}"
        self.tick(f"{what}: preparing", 0)
        self.restart()
        contenders = [contender for contender in self.contenders if contender.kind.name in ("op", "tensorflow")]
        failed, counts, results = {}, {}, {}
        for contender in contenders:
            contender.send(do="model", name=name, batch=batch, input=shapes.INPUTS[name])
        for contender in contenders:
            try:
                counts[contender] = contender.receive()
            except Failed as error:
                failed[contender] = str(error)
        self.tick(what, 1)
        times, _ = self.rounds(what, contenders, failed, False)
        for contender in contenders:
            if contender not in failed:
                try:
                    contender.ask(do="result", path=str(self.folder / "result"))
                    results[contender.kind.name, contender.threads] = np.fromfile(self.folder / "result", np.uint32)
                except Failed as error:
                    failed[contender] = str(error)
        for contender in contenders:
            row = {"model": name, "batch": batch, "threads": contender.threads, "contender": contender.kind.name}
            if contender in failed:
                yield row | {"error": failed[contender]}
                continue
            theirs = results.get(("tensorflow", contender.threads))
            if contender.kind.name == "op" and theirs is not None:
                row["differing_bits"] = int(np.count_nonzero(results["op", contender.threads] != theirs))
            yield row | medians(times[contender]) | counts[contender]

    def eager(self):
        """`tiny`, called from Python."""
        self.tick("eager calls", 0)
        shape = shapes.SHAPES["tiny"]
        process = self.process([*PYTHON, "benchmark.graphs", "op", "1"])
        try:
            with self.data(shape) as folder:
                request = {"shape": shape.request(), "data": str(folder), "rounds": self.options.rounds}
                return process.ask(do="eager", seconds=self.options.seconds, **request)
        except Failed as error:
            return {"error": str(error)}
        finally:
            process.stop()
            self.tick("eager calls", 1)

    def first_calls(self):
        """A new shape's first call in a fresh process, reveal included, on the most threads of the run."""
        process, rows = self.process([*PYTHON, "benchmark.first_call", max(self.options.threads)]), []
        for name in self.options.shapes:
            self.tick(f"first call of {name}", 0)
            row = {"shape": name}
            try:
                with self.data(shapes.SHAPES[name]) as folder:
                    request = {"shape": shapes.SHAPES[name].request(), "data": str(folder)}
                    for function in ("sepconv", "tensorflow"):
                        row[function] = process.ask(60, do="call", function=function, **request)
            except Failed as error:
                row["error"] = str(error)
            rows.append(row)
            self.tick(f"first call of {name}", 1)
        process.stop()
        return rows

    def process(self, command):
        self.more.append(Process(command, self.folder))
        return self.more[-1]

    def data(self, shape):
        return Data(self.folder / shape.name, shape)


class Data:
    """A folder with a shape's arrays, as long as the context lasts."""

    def __init__(self, folder, shape):
        self.folder, self.shape = folder, shape

    def __enter__(self):
        self.folder.mkdir(exist_ok=True)
        shapes.write(self.folder, shapes.arrays(self.shape))
        return self.folder

    def __exit__(self, *_):
        shutil.rmtree(self.folder)
