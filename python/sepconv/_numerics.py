"""What the text of numerics says of the zeros around an image: those that a Pad puts there are pixels as any others;
those that TensorFlow's depthwise operation puts there by itself may be left out of its sums.
"""

import re

# Of each alternative, where there are several: products, taps, and which order they have if it is not row by row.
_DEPTHWISE = re.compile(r"depthwise\((\w+), (\w+)(?:, (\w+))?")


def with_zeros(numerics: str) -> str | None:
    """The order of a call on images that have their zeros, for one on images without, which puts them there; None where
    it depends on what lies in memory behind the pixels, or on which columns are zeros: that is something else then."""
    if any(products == "overrun" or order == "borders" for products, _, order in _DEPTHWISE.findall(numerics)):
        return None
    return re.sub(r"(depthwise\(\w+), \w+", r"\1, all", numerics)


def counts_zeros(numerics: str) -> bool:
    """Whether every tap counts, on an image's pixels or not."""
    return {taps for _, taps, _ in _DEPTHWISE.findall(numerics)} == {"all"}
