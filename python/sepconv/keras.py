"""Keras's separable layers with sepconv inside, and existing models changed to them and back.

They are Keras's own classes but for what a call computes with: constructor, weights and files are Keras's. Once sepconv
is imported, `keras.models.load_model` finds them in `.keras` files.
"""

try:
    import keras
except ImportError as error:
    raise ImportError("sepconv.keras needs Keras 3 and does not install it: pip install keras") from error

import tensorflow as tf

from sepconv import _arguments, _convolution

if int(keras.__version__.split(".")[0]) < 3 or keras.backend.backend() != "tensorflow":
    raise ImportError(
        "sepconv.keras needs Keras 3 with TensorFlow as its backend, and this is Keras "
        f"{keras.__version__} with {keras.backend.backend()}"
    )


class _Separable:
    """What both layers do otherwise than Keras's."""

    numerics = "tensorflow"

    def call(self, inputs):
        if _left_to_keras(self) or keras.backend.is_keras_tensor(inputs):
            return super().call(inputs)
        axis = 1 if self.data_format == "channels_first" else -1
        inputs = tf.convert_to_tensor(inputs)  # refuses the sparse and ragged ones, which Keras's lets pass
        if inputs.shape.rank not in (None, self.rank + 2):
            raise ValueError(
                f"inputs must have {self.rank + 2} dimensions, got {inputs.shape.rank} (shape {inputs.shape})"
            )
        filters = [keras.ops.convert_to_tensor(kernel) for kernel in (self.depthwise_kernel, self.pointwise_kernel)]
        inputs, strides, dilations = keras.ops.moveaxis(inputs, axis, -1), self.strides, self.dilation_rate
        if self.rank == 1:  # an image of height 1; with equal strides, for TensorFlow takes no others
            inputs, filters = keras.ops.expand_dims(inputs, 1), [keras.ops.expand_dims(kernel, 0) for kernel in filters]
            strides, dilations = strides * 2, (1, *dilations)
        outputs = _convolution.separable_conv2d(
            *(inputs, *filters, [1, *strides, 1], self.padding.upper()), dilations=dilations, numerics=self.numerics
        )
        if self.rank == 1:
            outputs = keras.ops.squeeze(outputs, 1)
        outputs = keras.ops.moveaxis(outputs, -1, axis)
        if self.use_bias:  # where Keras adds it: its gradient is a sum, which has an order too
            shape = [1] * (self.rank + 2)
            shape[axis] = self.filters
            outputs = keras.ops.add(outputs, keras.ops.reshape(self.bias, shape))
        return outputs if self.activation is None else self.activation(outputs)

    def get_config(self):
        # Not the usual one: constructors, of subclasses too, do not know it.
        numerics = {} if self.numerics == _Separable.numerics else {"numerics": self.numerics}
        return {**super().get_config(), **numerics}

    @classmethod
    def from_config(cls, config):
        config = dict(config)  # the constructor stays Keras's
        numerics = config.pop("numerics", cls.numerics)
        layer = super().from_config(config)
        layer.numerics = numerics
        return layer


@keras.saving.register_keras_serializable(package="sepconv")
class SeparableConv2D(_Separable, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` with sepconv inside: the same weights, config and bits.

    Args: As for `keras.layers.SeparableConv2D`. Strides and dilation above 1 together go Keras's own way.

    Attributes:
        numerics: Whose bits, as for `sepconv.separable_conv2d`; to be set before the first call.

    Input shape: `(batch, height, width, channels)`, or `(batch, channels, height, width)` with `channels_first`.

    Output shape: `(batch, new_height, new_width, filters)`, or `(batch, filters, new_height, new_width)`; of the
    layer's compute dtype, of which the op takes float16, bfloat16, float32 and float64.

    Raises:
        ValueError: What Keras refuses.

    Example:
        >>> y = sepconv.keras.SeparableConv2D(8, 3, padding="same", activation="relu")(np.ones([4, 10, 10, 12]))
        >>> y.shape
        TensorShape([4, 10, 10, 8])
    """


@keras.saving.register_keras_serializable(package="sepconv")
class SeparableConv1D(_Separable, keras.layers.SeparableConv1D):
    """`keras.layers.SeparableConv1D` with sepconv inside: the same weights, config and bits.

    Args, Attributes, Raises: As for `SeparableConv2D`.

    Input shape: `(batch, steps, channels)`, or `(batch, channels, steps)` with `channels_first`.

    Output shape: `(batch, new_steps, filters)`, or `(batch, filters, new_steps)`.

    Example:
        >>> y = sepconv.keras.SeparableConv1D(8, 3)(np.ones([4, 10, 12]))
        >>> y.shape
        TensorShape([4, 8, 8])
    """


_OURS = {
    keras.layers.SeparableConv2D: SeparableConv2D,
    keras.layers.SeparableConv1D: SeparableConv1D,
}
_STOCK = {ours: stock for stock, ours in _OURS.items()}


def convert(model: keras.Layer, numerics: str = "tensorflow") -> keras.Layer:
    """Changes a model's stock `SeparableConv2D` and `SeparableConv1D` layers, however deeply nested, to sepconv's.

    The layers stay the same objects, so weights, names, dtype policies, `trainable`, sharing and the optimizer's state
    stay. Layers that are sepconv's already keep their numerics. Subclasses of Keras's layers remain stock, and layers
    with strides and dilation above 1, which Keras does not compute with `tf.nn.separable_conv2d`. What `fit`,
    `evaluate` and `predict` have traced is traced again, in a callback too; what a model around this one or a
    `tf.function` of your own has traced is not: convert the outermost model, and first. With oneDNN on several threads
    `fit` gives a bias the gradient of TensorFlow's eager calls, of which the last bits differ in its functions: stock
    layers learn the same weights where both have `run_eagerly=True`.

    Args:
        model: A Keras model of any kind, or a layer. It is changed in place.
        numerics: Whose bits, as for `sepconv.separable_conv2d`.

    Returns:
        The same model.

    Raises:
        TypeError: `model` is not of Keras 3, or `numerics` is not a string. Nothing is changed.
        InvalidArgumentError, ValueError: `numerics` is no name that is known here, nor such a text. Nothing is changed.

    Example:
        >>> model = sepconv.keras.convert(keras.applications.Xception(weights=None))
        >>> model.predict(images)
    """
    _arguments.check_numerics(numerics)
    layers = _layers(model)
    changed = [layer for layer in layers if type(layer) in _OURS and not _left_to_keras(layer)]
    for layer in changed:
        layer.__class__ = _OURS[type(layer)]
        layer.numerics = numerics
    return _traced_again(model, layers, changed)


def restore(model: keras.Layer) -> keras.Layer:
    """Changes sepconv's layers back to stock ones, so that the model can be saved for those without sepconv.

    Args, Raises: As for `convert`.

    Returns:
        The same model.

    Example:
        >>> sepconv.keras.restore(model).save("model.keras")
    """
    layers = _layers(model)
    changed = [layer for layer in layers if type(layer) in _STOCK]
    for layer in changed:
        layer.__class__ = _STOCK[type(layer)]
        vars(layer).pop("numerics", None)
    return _traced_again(model, layers, changed)


def _left_to_keras(layer) -> bool:
    """Whether Keras computes it by other means than `tf.nn.separable_conv2d`, whose strides count otherwise here."""
    return max(layer.strides) > 1 and max(layer.dilation_rate) > 1


def _layers(model):
    """The model and every layer in it, each once."""
    if not isinstance(model, keras.Layer):
        raise TypeError(f"model must be a model or layer of Keras {keras.__version__}, got {model!r} ({type(model)})")
    return model._flatten_layers()


def _traced_again(model, layers, changed):
    """The model, whose functions, and those of models in it, are made anew if layers were changed: in a callback `fit`
    goes on with them."""
    for layer in layers if changed else ():
        if isinstance(layer, keras.Model):
            for kind in ("train", "test", "predict"):
                if getattr(layer, f"{kind}_function") is not None:
                    setattr(layer, f"{kind}_function", None)
                    getattr(layer, f"make_{kind}_function")()
    return model
