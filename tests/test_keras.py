"""sepconv's Keras layers give the bits of Keras's own, in models of every kind, in training and from files."""

import inspect

import keras
import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN, PROMISED, THREADS
from fresh import in_fresh_process
from helpers import gradient_calls, kernel_calls, same

pytestmark = PROMISED

once = pytest.mark.skipif(not ONEDNN or THREADS > 1, reason="files and imports know no modes")

STOCK = keras.layers.SeparableConv1D, keras.layers.SeparableConv2D
OURS = {stock: getattr(sepconv.keras, stock.__name__) for stock in STOCK}

OPTIONS = {
    "plain": {},
    "everything": {"padding": "same", "depth_multiplier": 2, "activation": "relu", "bias_initializer": "normal"},
    "strided": {"strides": 2, "padding": "same", "use_bias": False},
    "dilated": {"dilation_rate": 2, "padding": "same"},
    "strided and dilated": {"strides": 2, "dilation_rate": 3, "padding": "same"},
    "one filter": {"filters": 1},
}


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(7)


def count(model, kinds) -> int:
    return sum(type(layer) in kinds for layer in model._flatten_layers())


def path_of(layer, x) -> str:
    """What `explain` says of a layer's convolution: in one dimension that of an image of height 1."""
    image = list(x.shape) if layer.data_format == "channels_last" else [x.shape[0], *x.shape[2:], x.shape[1]]
    shapes, strides = [image, layer.depthwise_kernel.shape, layer.pointwise_kernel.shape], layer.strides
    dilations = layer.dilation_rate
    if layer.rank == 1:
        shapes = [[image[0], 1, *image[1:]], *([1, *shape] for shape in shapes[1:])]
        strides, dilations = strides * 2, [1, *dilations]
    specs = [tf.TensorSpec(shape, layer.compute_dtype) for shape in shapes]
    return sepconv.explain(*specs, [1, *strides, 1], layer.padding.upper(), dilations=dilations).path


@pytest.mark.parametrize(
    ("policy", "data_format"),
    [
        *[(policy, "channels_last") for policy in ("float32", "float64", "mixed_float16", "mixed_bfloat16")],
        *[(policy, "channels_first") for policy in ("float32", "mixed_float16")],
    ],
)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("stock", STOCK)
def test_a_layer(stock, options, policy, data_format, rng):
    given = {"filters": 6, "kernel_size": 3, "data_format": data_format, "dtype": policy, **OPTIONS[options]}
    theirs = stock(**given)
    spatial = [11, 9][: theirs.rank]
    x = rng.standard_normal([2, *spatial, 4] if data_format == "channels_last" else [2, 4, *spatial])
    expected = theirs(x)
    ours = OURS[stock].from_config(theirs.get_config())
    ours.build(x.shape)
    ours.set_weights(theirs.get_weights())
    before = kernel_calls()
    assert same(ours(x), expected)
    took_part = kernel_calls() - before
    if options == "strided and dilated":
        assert took_part == 0
    else:
        assert took_part == (path_of(ours, x) == "op")
        if options != "one filter" and not policy.startswith("mixed"):  # whose orders are not always found, or followed
            assert took_part == 1
    assert ours.get_config() == theirs.get_config()
    if policy == "float32":
        assert same(tf.function(ours)(x), expected)
        assert ours.compute_output_shape(x.shape) == expected.shape == ours(keras.Input(x.shape[1:], 2)).shape


def test_constructors():
    assert all(inspect.signature(ours) == inspect.signature(stock) for stock, ours in OURS.items())


class Block(keras.layers.Layer):
    """Layers in a layer, in a list and in a dictionary."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.several = [keras.layers.SeparableConv2D(6, 3, padding="same") for _ in range(2)]
        self.named = {"last": keras.layers.SeparableConv2D(6, 1)}

    def call(self, inputs):
        for layer in self.several:
            inputs = layer(inputs)
        return self.named["last"](inputs)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = keras.layers.SeparableConv2D(6, 3, name="first")
        self.block = Block()
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.end = keras.layers.Dense(3)

    def call(self, inputs):
        return self.end(self.pool(self.block(self.first(inputs))))


def functional():
    """With a shared layer, a model in the model, a frozen layer, one of one dimension and mixed precision."""
    inputs = keras.Input([10, 8, 4])
    shared = keras.layers.SeparableConv2D(4, 3, padding="same", activation="relu", name="shared")
    first = shared(inputs)
    inner = keras.Sequential([keras.layers.SeparableConv2D(6, 3, dtype="mixed_bfloat16", name="inner")])
    both = inner(keras.layers.add([first, shared(first)]))
    frozen = keras.layers.SeparableConv2D(5, (3, 2), strides=2, trainable=False, name="frozen")
    both = frozen(keras.layers.BatchNormalization()(both))
    in_one_dimension = keras.layers.SeparableConv1D(6, 3, padding="same", name="in_one_dimension")
    ends = keras.layers.GlobalAveragePooling1D()(in_one_dimension(keras.layers.Reshape([9, 5])(both)))
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(ends))


def sequential():
    """With a layer in a wrapper, and one over time."""
    model = keras.Sequential([keras.Input([10, 8, 4])])
    model.add(keras.layers.SeparableConv2D(6, 3))
    model.add(keras.layers.Reshape([2, 24, 6]))
    model.add(keras.layers.TimeDistributed(keras.layers.SeparableConv1D(6, 3, padding="same")))
    model.add(keras.layers.Reshape([48, 6]))
    model.add(keras.layers.SeparableConv1D(8, 3, dilation_rate=2, activation="tanh"))
    model.add(keras.layers.GlobalMaxPooling1D())
    model.add(keras.layers.Dense(3))
    return model


def subclassed():
    model = Subclassed()
    model(np.zeros([1, 10, 8, 4], np.float32))
    return model


def small():
    """What is quickly traced."""
    model = keras.Sequential([keras.Input([10, 8, 4]), keras.layers.SeparableConv2D(4, 3, activation="relu")])
    model.add(keras.layers.Reshape([48, 4]))
    # No bias: with AVX-512 BF16 TensorFlow adds one before rounding in graphs, and afterwards in eager calls.
    options = {"strides": 2, "padding": "same", "use_bias": False, "dtype": "mixed_bfloat16"}
    model.add(keras.layers.SeparableConv1D(4, 3, **options))
    model.add(keras.layers.GlobalAveragePooling1D())
    return model


def half_precision():
    """The whole model, so that its loss is scaled."""
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input([10, 8, 4]), keras.layers.SeparableConv2D(6, 3, padding="same")])
        model.add(keras.layers.GlobalAveragePooling2D())
        model.add(keras.layers.Dense(3, dtype="float32"))
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    return model


def channels_first():
    options = {"data_format": "channels_first"}
    model = keras.Sequential([keras.Input([10, 8, 4]), keras.layers.SeparableConv2D(6, 3, padding="same", **options)])
    model.add(keras.layers.GlobalAveragePooling2D(**options))
    model.add(keras.layers.Dense(3))
    return model


# How many separable layers there are.
MODELS = {functional: 4, sequential: 3, subclassed: 4}


def traits(model):
    """What converting must leave as it is."""
    layers = model._flatten_layers()
    state = [(layer.name, layer.path, layer.trainable, layer.dtype_policy, layer.built) for layer in layers]
    return [id(layer) for layer in layers], state, [(id(v), v.path, v.trainable) for v in model.variables]


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_convert_and_restore(build, rng):
    model, x = build(), rng.standard_normal([5, 10, 8, 4], dtype=np.float32)
    expected, before, weights = model(x), traits(model), model.get_weights()
    assert sepconv.keras.convert(model) is model
    assert (count(model, STOCK), count(model, OURS.values())) == (0, MODELS[build])
    assert traits(model) == before
    calls = kernel_calls()
    assert same(model(x), expected)
    assert kernel_calls() - calls >= MODELS[build] - 1  # bfloat16's order is not always found
    assert sepconv.keras.convert(model) is model and count(model, OURS.values()) == MODELS[build]  # again

    assert sepconv.keras.restore(model) is model
    assert (count(model, STOCK), count(model, OURS.values())) == (MODELS[build], 0)
    assert traits(model) == before and all(map(same, model.get_weights(), weights))
    assert not any("numerics" in vars(layer) for layer in model._flatten_layers())
    calls = kernel_calls()
    assert same(model(x), expected)
    assert kernel_calls() == calls


def test_what_was_traced_is_forgotten(rng):
    model, x = keras.Sequential([keras.layers.SeparableConv2D(4, 3)]), rng.standard_normal([5, 6, 6, 4])
    model = keras.Sequential([model])
    expected = model.predict(x, batch_size=2, verbose=0)
    for change, took_part in ((sepconv.keras.convert, 3), (sepconv.keras.restore, 0)):
        calls = kernel_calls()
        assert same(change(model).predict(x, batch_size=2, verbose=0), expected)
        assert kernel_calls() - calls == took_part


def test_a_callback_may_change_a_model_in_training(tmp_path, rng):
    """The model goes on; where nothing is changed, with the functions that it had."""
    model = keras.Sequential([keras.Input([9, 8, 4]), keras.layers.SeparableConv2D(5, 3)])
    sepconv.keras.convert(model).compile("sgd", "mse")
    functions = []

    def stock_file(epoch, _):
        functions.append(sepconv.keras.convert(model).train_function)
        sepconv.keras.restore(model).save(tmp_path / f"{epoch}.keras")
        sepconv.keras.convert(model)
        functions.append(model.train_function)

    x, y = rng.standard_normal([4, 9, 8, 4]), rng.standard_normal([4, 7, 6, 5])
    callback = keras.callbacks.LambdaCallback(on_epoch_end=stock_file)
    calls = kernel_calls()
    model.fit(x, y, epochs=2, batch_size=4, validation_data=(x, y), verbose=0, callbacks=[callback])
    assert kernel_calls() - calls == 2 * 2
    assert functions[0] is not functions[1] and functions[1] is functions[2] and model.predict_function is None
    assert all(type(keras.models.load_model(tmp_path / f"{n}.keras").layers[0]) in STOCK for n in range(2))


def trained(model, prepare, eagerly):
    """Losses, weights and the optimizer's state of some steps, prepared after the first half, and what is evaluated and
    predicted then."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal([16, 10, 8, 4], dtype=np.float32), rng.integers(0, 3, 16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"], run_eagerly=eagerly)
    losses = []
    for change in (lambda model: None, prepare):
        change(model)
        losses += model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"]
    results = [*losses, *model.evaluate(x, y, batch_size=8, verbose=0), model.predict(x, batch_size=8, verbose=0)]
    return [*results, *model.get_weights(), *[variable.numpy() for variable in model.optimizer.variables]]


TRAINED = {"function": (small, False), "eager": (functional, True)}
TRAINED |= {build.__name__: (build, True) for build in (half_precision, channels_first)}


@pytest.mark.parametrize(("build", "eagerly"), TRAINED.values(), ids=TRAINED)
def test_training(build, eagerly):
    """The same losses and weights as with stock layers, to the bit."""
    model = build()
    weights = model.get_weights()
    expected = trained(model, lambda model: None, eagerly)
    model.set_weights(weights)
    calls, gradients_before = kernel_calls(), gradient_calls()
    assert all(map(same, trained(model, sepconv.keras.convert, eagerly), expected))
    # Half of training, evaluate and predict, of 2 steps each; orders of 16 bits are not always found.
    layers = [layer for layer in model._flatten_layers() if type(layer) in OURS.values()]
    at_least = sum(layer.compute_dtype == "float32" for layer in layers)
    assert layers and kernel_calls() - calls >= 6 * at_least
    assert gradient_calls() - gradients_before >= 2 * 3 * at_least
    assert not all(map(same, model.get_weights(), weights))


LOAD = """
import sys
import keras, numpy as np, tensorflow as tf
folder, name, threads = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
if name == "ours":
    import sepconv
x = np.load(f"{folder}/x.npy")
model = keras.models.load_model(f"{folder}/{name}.keras")
np.save(f"{folder}/{name}.npy", model(x))
print("sepconv" in sys.modules, sepconv.stats()["kernel_calls"] if name == "ours" else 0)
"""


@once
def test_files(tmp_path, rng):
    """Ours load once sepconv is imported; restored ones, and weights, where it never was."""
    model, x = functional(), rng.standard_normal([2, 10, 8, 4], dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    expected = model(x)
    model.save_weights(tmp_path / "stock.weights.h5")
    sepconv.keras.convert(model).save(tmp_path / "ours.keras")
    sepconv.keras.restore(model).save(tmp_path / "restored.keras")
    there, calls = in_fresh_process(LOAD, str(tmp_path), "ours", str(THREADS)).split()
    assert there == "True" and int(calls) >= 4  # of 5: bfloat16's order is not always found
    assert in_fresh_process(LOAD, str(tmp_path), "restored", str(THREADS)).split() == ["False", "0"]
    assert same(np.load(tmp_path / "ours.npy"), expected) and same(np.load(tmp_path / "restored.npy"), expected)

    loaded = keras.models.load_model(tmp_path / "ours.keras")
    assert count(loaded, OURS.values()) == MODELS[functional] and loaded.get_layer("frozen").trainable is False
    loaded.set_weights([0 * weight for weight in loaded.get_weights()])
    loaded.load_weights(tmp_path / "stock.weights.h5")
    assert same(loaded(x), expected)
    assert same(sepconv.keras.restore(loaded)(x), expected) and count(loaded, OURS.values()) == 0


def test_numerics(tmp_path, rng):
    """Kept in files and copies; gone after restore."""
    x = rng.standard_normal([3, 6, 6, 4], dtype=np.float32)
    model = keras.Sequential([keras.Input([6, 6, 4]), keras.layers.SeparableConv2D(5, 3, use_bias=False)])
    sepconv.keras.convert(model, numerics="reproducible").save(tmp_path / "model.keras")
    kernels = [*model.get_weights(), [1, 1, 1, 1], "VALID"]
    expected = sepconv.separable_conv2d(x, *kernels, numerics="reproducible")
    for copy in (model, keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert copy.layers[0].numerics == "reproducible"
        copy.set_weights(model.get_weights())
        assert same(copy(x), expected)
    assert "numerics" not in sepconv.keras.restore(model).layers[0].get_config()


@pytest.mark.parametrize("layer", OURS.values(), ids=lambda layer: layer.__name__)
def test_a_call_of_what_has_no_values_yet(layer):
    """Some layers call those within them, to find out a shape."""
    ours, image = layer(4, 3), [9, 3] if "1D" in layer.__name__ else [9, 8, 3]
    inputs = keras.Input(image)
    ours.build((None, *image))
    outputs = ours.call(inputs)
    assert outputs.shape == ours.compute_output_shape((None, *image))
    assert same(keras.Model(inputs, outputs)(np.ones([2, *image])), ours(np.ones([2, *image])))
    with pytest.raises(ValueError, match=f"must have {len(image) + 1} dimensions, got {len(image) + 2}"):
        ours.call(tf.ones([1, 2, *image]))


class Mine(sepconv.keras.SeparableConv2D):
    """Somebody's, which hands its config on as it is."""

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_a_layer_that_is_made_of_its_config():
    assert Mine.from_config(Mine(4, 3, strides=2).get_config()).strides == (2, 2)


class Plain(keras.Sequential):
    """Somebody's model, whose functions are made without a question."""

    def make_train_function(self):
        return super().make_train_function()


def test_a_model_that_makes_its_own_functions(rng):
    model = Plain([keras.Input([6, 6, 4]), keras.layers.SeparableConv2D(5, 3)])
    model.compile("sgd", "mse")
    x, y = rng.standard_normal([2, 6, 6, 4]), rng.standard_normal([2, 4, 4, 5])
    for change, took_part in ((lambda model: None, 0), (sepconv.keras.convert, 1), (sepconv.keras.restore, 0)):
        change(model)
        calls = kernel_calls()
        model.fit(x, y, verbose=0)
        assert kernel_calls() - calls == took_part


class Own(keras.layers.SeparableConv2D):
    """Somebody's layer, which may do what it likes."""

    def call(self, inputs):
        return -super().call(inputs)


def test_what_stays_stock(rng):
    x = rng.standard_normal([2, 12, 12, 4], dtype=np.float32)
    both = keras.layers.SeparableConv2D(4, 3, strides=2, dilation_rate=2)
    ours = sepconv.keras.SeparableConv2D(4, 3)
    ours.numerics = "reproducible"
    model = keras.Sequential([both, keras.layers.Conv2D(4, 1), Own(4, 1), ours])
    expected = model(x)
    sepconv.keras.convert(model)
    assert [type(layer) for layer in model.layers] == [STOCK[1], keras.layers.Conv2D, Own, type(ours)]
    assert ours.numerics == "reproducible"
    assert same(model(x), expected)


@pytest.mark.parametrize("change", [sepconv.keras.convert, sepconv.keras.restore])
@pytest.mark.parametrize("model", [None, 3, "model.keras", keras.Model, lambda x: x, tf.Module(), [keras.Model()]])
def test_what_is_no_model(change, model):
    with pytest.raises(TypeError, match="^model must be a model or layer of Keras 3.*, got "):
        change(model)


@pytest.mark.parametrize("convert", [tf.sparse.from_dense, tf.RaggedTensor.from_tensor])
def test_what_is_no_tensor(convert):
    x = convert(tf.ones([1, 6, 6, 4]))
    for layer in keras.layers.SeparableConv2D(5, 3), sepconv.keras.SeparableConv2D(5, 3):
        layer.build([1, 6, 6, 4])
        with pytest.raises(ValueError, match="SeparableConv2D"):
            layer(x)


def test_bad_arguments(rng):
    model = keras.Sequential([keras.Input([6, 6, 4]), keras.layers.SeparableConv2D(5, 3)])
    with pytest.raises(TypeError, match="numerics must be a string, got 3"):
        sepconv.keras.convert(model, numerics=3)
    assert count(model, STOCK) == 1
    with pytest.raises(ValueError, match="strides"):
        sepconv.keras.SeparableConv2D(5, 3, strides=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="numerics must be 'tensorflow', .* got 'tensorflov'"):
        sepconv.keras.convert(model, numerics="tensorflov")
    assert count(model, STOCK) == 1
    with pytest.raises(ValueError, match="shape"):
        sepconv.keras.convert(model)(rng.standard_normal([1, 6, 6, 3]))


WITHOUT = """
import sys
import tensorflow
{change}
import sepconv
assert "sepconv.keras" not in sys.modules
try:
    import sepconv.keras
except ImportError as error:
    print(error)
"""


@once
@pytest.mark.parametrize(
    "change",
    ["sys.modules['keras'] = None", "import keras; keras.__version__ = '2.15.0'"],
    ids=["no Keras", "Keras 2"],
)
def test_without_keras_3(change):
    assert in_fresh_process(WITHOUT.format(change=change)).startswith("sepconv.keras needs Keras 3")
