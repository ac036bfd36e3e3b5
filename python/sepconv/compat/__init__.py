"""The functions in the argument order of TensorFlow's older surfaces."""

from sepconv.compat import v1

__all__ = ["v1"]
