"""`python -m sepconv inspect` counts what was published, and what belongs together as one layer."""

import keras
import pytest
import tensorflow as tf
from inspecting import inspect, ones
from sepconv import _cost, _layers

LAYERS = keras.layers


def layers_of(function, *shapes):
    """The layers of a function of images, in a graph as a frozen one is."""
    with tf.Graph().as_default() as graph:
        images = [tf.compat.v1.placeholder(tf.float32, shape, f"image{i}") for i, shape in enumerate(shapes)]
        function(*images)
    return _layers.find(graph, [image.op.name for image in images])[0]


@pytest.fixture(scope="module")
def standard(folder):
    """One 3x3 convolution of 28x28x192 to 256 channels."""
    layer = LAYERS.Conv2D(256, 3, padding="same", use_bias=False, name="conv2d")
    model = keras.Sequential([keras.Input([28, 28, 192]), layer])
    model.save(folder / "standard.keras")
    return inspect(folder, folder / "standard.keras")


@pytest.fixture(scope="module")
def mobilenet(folder):
    return inspect(folder, "MobileNet")


# Published figures


def test_a_layer_of_inceptions_size(standard):
    (layer,) = standard["layers"]
    assert layer["multiply_adds"] == {"model": 346_816_512, "standard": 346_816_512, "separable": 39_889_920}
    assert layer["ratio"] == pytest.approx(0.1150, abs=5e-5)
    assert layer["ratio"] == pytest.approx(1 / 256 + 1 / 9) == layer["predicted_ratio"]
    assert standard["totals"]["ratio"] == layer["ratio"] and layer["name"] == "conv2d"


def test_groups_from_standard_to_separable(standard):
    groups = standard["groups"]
    counts = [row["groups"] for row in groups["rows"]]
    assert counts[:3] == [1, 3, 4] and counts[-1] == 192 and counts == sorted(counts)
    assert (groups["squeezed"]["channels"], groups["squeezed"]["parameters"]) == (32, 79_872)
    assert groups["rows"][0]["parameters"] == 442_368
    products = [row["multiply_adds"] for row in groups["rows"]]
    assert products[0] == 346_816_512 and products[-1] == 39_889_920 and products == sorted(products, reverse=True)
    three = groups["rows"][1]
    assert three["parameters"] == 3 * 9 * 64 * 64 + 192 * 256


def test_where_mobilenets_work_is(mobilenet):
    """Table 2 of its paper, where the share of the first convolution's multiply-adds must be a slip: the shares there
    add up to 99.3 %."""
    work = mobilenet["totals"]["work"]
    shares = {
        kind: (round(100 * w["of_multiply_adds"], 2), round(100 * w["of_parameters"], 2)) for kind, w in work.items()
    }
    assert shares == {
        "1x1": (94.86, 74.59),
        "depthwise": (3.06, 1.06),
        "convolution": (1.91, 0.02),
        "dense": (0.18, 24.33),
    }


def test_a_kernel_that_is_not_square():
    layer = _cost.Layer("", (), "separable", (2, 8, 8, 6), (2, 8, 8, 10), (3, 5), channel_multiplier=2)
    assert layer.cost() == layer.separable() == _cost.Cost(15 * 12 + 12 * 10, 128 * (15 * 12 + 12 * 10))
    assert layer.standard() == _cost.Cost(15 * 60, 128 * 15 * 60)
    assert layer.predicted_ratio() == _cost.Fraction(1, 10) + _cost.Fraction(1, 15)


# Its tables 6 and 7: millions of multiply-adds, and of parameters.
PUBLISHED = {
    **{(1, 1): (569, 4.2), (0.75, 1): (325, 2.6), (0.5, 1): (149, 1.3), (0.25, 1): (41, 0.5)},
    **{(1, 6 / 7): (418, 4.2), (1, 5 / 7): (290, 4.2), (1, 4 / 7): (186, 4.2)},
}


def test_mobilenets_multipliers(mobilenet):
    rows = {(row["alpha"], row["rho"]): row for row in mobilenet["multipliers"]}
    assert len(rows) == 16 and set(PUBLISHED) <= set(rows)
    for (alpha, rho), (products, parameters) in PUBLISHED.items():
        row = rows[alpha, rho]
        assert abs(row["multiply_adds"] / 1e6 - products) < 1 and round(row["parameters"] / 1e6, 1) == parameters
        assert row["predicted_ratio"] == pytest.approx(alpha**2 * rho**2) and row["exact"]
        assert row["ratio"] == row["multiply_adds"] / rows[1, 1]["multiply_adds"]
        # Depthwise convolutions grow with alpha alone, so the model's cost falls more slowly.
        assert row["ratio"] >= row["predicted_ratio"] - 1e-12


def test_a_thinner_mobilenet_is_the_one_that_keras_builds(folder, mobilenet):
    keras.applications.MobileNet(alpha=0.75, input_shape=(160, 160, 3), weights=None).save(folder / "thin.keras")
    built = inspect(folder, folder / "thin.keras", "--alpha", "1", "--rho", "1")["totals"]
    (row,) = [r for r in mobilenet["multipliers"] if r["alpha"] == 0.75 and r["rho"] == pytest.approx(5 / 7)]
    assert row["multiply_adds"] == built["multiply_adds"]["model"]
    assert row["parameters"] == built["parameters"]["model"]


# Which layers there are


def test_what_belongs_together():
    depthwise, pointwise = ones(3, 3, 4, 1), ones(1, 1, 4, 8)

    def kinds(between):
        def function(x):
            y = tf.nn.depthwise_conv2d(x, depthwise, [1, 1, 1, 1], "SAME")
            return tf.nn.conv2d(between(x, y), pointwise, 1, "VALID")

        return [layer.kind for layer in layers_of(function, [1, 6, 6, 4])]

    apart = ["depthwise", "1x1"]
    assert kinds(lambda x, y: y) == ["separable"]
    assert kinds(lambda x, y: tf.nn.silu(tf.nn.bias_add(y, ones(4)))) == ["separable"]
    assert kinds(lambda x, y: y * tf.sigmoid(tf.reduce_mean(y, [1, 2], keepdims=True))) == ["separable"]
    assert kinds(lambda x, y: x + y) == apart
    assert kinds(lambda x, y: tf.nn.max_pool2d(y, 3, 1, "SAME")) == apart
    assert kinds(lambda x, y: tf.concat([y[:, :3], x[:, 3:]], 1)) == apart


def test_two_takers_of_a_depthwise_result():
    def function(x):
        y = tf.nn.depthwise_conv2d(x, ones(3, 3, 4, 1), [1, 1, 1, 1], "SAME")
        return [tf.nn.conv2d(y, ones(1, 1, 4, 8), 1, "VALID") for _ in range(2)]

    assert [layer.kind for layer in layers_of(function, [1, 6, 6, 4])] == ["depthwise", "1x1", "1x1"]


def test_products_of_a_single_pixel_and_of_every_pixel():
    def function(x, y):
        return (
            tf.nn.conv2d(x, ones(1, 1, 4, 8), 1, "VALID"),
            tf.matmul(y, ones(8, 3)),
            tf.matmul(y, y, transpose_a=True),
        )

    one, every, of_images = layers_of(function, [1, 1, 1, 4], [10, 8])
    assert (one.kind, every.kind, of_images.kind) == ("dense", "1x1", "dense")
    assert [layer.cost() for layer in (one, every, of_images)] == [
        *(_cost.Cost(32, 32), _cost.Cost(24, 240)),
        _cost.Cost(0, 8 * 10 * 8),  # no weights
    ]


def test_channels_first():
    def function(x):
        y = tf.nn.conv2d(x, ones(3, 3, 2, 6), [1, 1, 2, 2], "SAME", data_format="NCHW")
        return tf.nn.conv2d(y, ones(1, 1, 6, 5), 1, "VALID", data_format="NCHW")

    first, second = layers_of(function, [1, 4, 10, 8])
    assert (first.kind, first.input, first.output, first.groups) == ("grouped", (1, 10, 8, 4), (1, 5, 4, 6), 2)
    assert (second.kind, second.first, second.last) == ("1x1", False, True)


def test_what_is_not_counted_is_said(tmp_path):
    def body(x):
        return tf.nn.conv2d(x, ones(1, 1, 4, 4), 1, "VALID")

    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, [1, 4, 4, 4], "image")
        x = tf.einsum("bhwc,cd->bhwd", body(image), ones(4, 4))
        tf.function(lambda x: tf.while_loop(lambda _: True, body, [x], maximum_iterations=3))(x)
    path = tmp_path / "loop.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    notes = inspect(tmp_path, path)["notes"]
    assert notes == ["1 Einsum not counted", "1 products inside branches or loops not counted"]


def test_a_resolution_that_the_graph_does_not_take(tmp_path):
    flat = [keras.Input([8, 8, 3]), LAYERS.Conv2D(4, 3, padding="same"), LAYERS.Flatten(), LAYERS.Dense(2)]
    keras.Sequential(flat).save(tmp_path / "flat.keras")
    report = inspect(tmp_path, tmp_path / "flat.keras", "--alpha", "1", "--rho", "1,1/2")
    assert [row["exact"] for row in report["multipliers"]] == [True, False]
    assert [row["multiply_adds"] for row in report["multipliers"]] == [64 * 108 + 512, 16 * 108 + 512]
    assert "takes no other resolution" in report["notes"][0]


@pytest.mark.parametrize(
    "channels, expected",
    [(192, [1, 3, 4, 8, 16, 32, 64, 192]), (728, [1, 4, 8, 26, 52, 104, 364, 728]), (1, [1]), (7, [1, 7])],
)
def test_numbers_of_groups(channels, expected):
    assert _cost.groups_of(channels) == expected
