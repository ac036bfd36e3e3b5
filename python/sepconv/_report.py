"""What was replaced in a model, what was left and why: as a table and as JSON."""

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class Layer:
    """One separable convolution of a model, or one part of it alone.

    Attributes:
        node: The name of its last node.
        function: The function of the model that it is in; "" for the graph.
        replaced: Whether it was.
        reason: Why, in a phrase.
        input, depthwise_filter, pointwise_filter, dtype, strides, padding, rate: What it computes, where that is known;
            of one part alone, the other's filter is None.
        numerics: The text of the order of sums that the op follows, or followed; None where nothing was replaced.
        depthwise_steps, pointwise_steps: What the op does, or did, behind its two parts.
        exact: False where a shape is unknown, so that the order is a prediction.
    """

    node: str
    function: str
    replaced: bool
    reason: str
    input: tuple | None = None
    depthwise_filter: tuple | None = None
    pointwise_filter: tuple | None = None
    dtype: str | None = None
    strides: tuple | None = None
    padding: str | tuple | None = None
    rate: tuple | None = None
    numerics: str | None = None
    depthwise_steps: str = ""
    pointwise_steps: str = ""
    exact: bool = True

    @property
    def what(self) -> str:
        """Shapes and attributes in a line."""
        if self.input is None:
            return ""
        parts = []
        if self.depthwise_filter is not None:
            parts.append(f"{_extents(self.depthwise_filter)}{'' if self.pointwise_filter else ' depthwise'}")
        if self.pointwise_filter is not None:
            parts.append(f"{'' if self.depthwise_filter else '1x1 '}to {self.pointwise_filter[3]}")
        text = f"{_extents(self.input)}, {' '.join(parts)}, {self.dtype}, {self.padding}"
        if set(self.strides) != {1}:
            text += f", strides {_extents(self.strides)}"
        if set(self.rate) != {1}:
            text += f", rate {_extents(self.rate)}"
        each = (self.depthwise_filter, self.depthwise_steps), (self.pointwise_filter, self.pointwise_steps)
        steps = [steps for filter, steps in each if filter is not None]
        return text + (f", {' / '.join(step or '-' for step in steps)}" if any(steps) else "")


def _extents(shape) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape)


@dataclasses.dataclass(frozen=True)
class Report:
    """What was done with the separable convolutions of a model, and the 1x1 ones with steps; printed, it is a table.

    Attributes:
        layers: A `Layer` for each that was looked at.
        already: How many of sepconv's ops the model that was rewritten held before.
    """

    layers: tuple[Layer, ...] = ()
    already: int = 0

    def __add__(self, other: "Report") -> "Report":
        """Of both graphs of a model."""
        return Report(self.layers + other.layers, self.already + other.already)

    @property
    def replaced(self) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.replaced)

    @property
    def left(self) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if not layer.replaced)

    def as_dict(self) -> dict:
        """The counts `replaced`, `left` and `already` and the list `layers`, as JSON takes them."""
        layers = [dataclasses.asdict(layer) for layer in self.layers]
        return {"replaced": len(self.replaced), "left": len(self.left), "already": self.already, "layers": layers}

    def json(self) -> str:
        return json.dumps(self.as_dict(), indent=2)

    def rows(self) -> list:
        """The table's lines, equal layers of one function together: how many, what, done, why."""
        found: dict = {}
        for layer in self.layers:
            key = layer.function, layer.what, layer.replaced, layer.reason
            found.setdefault(key, []).append(layer.node)
        return [
            (nodes[0] if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1} more", function, what, done, reason)
            for (function, what, done, reason), nodes in found.items()
        ]

    def summary(self) -> str:
        """One line."""
        done = f"{len(self.replaced)} replaced, {len(self.left)} left"
        if not self.layers:
            done = "nothing to replace, the model is the same"
        if not self.already:
            return done
        return f"already rewritten: {self.already} {'op' if self.already == 1 else 'ops'} of sepconv; {done}"

    def __str__(self) -> str:
        lines = [
            f"{'replaced' if done else 'left':8}  {node}{' in ' + function if function else ''}"
            f"{': ' + what if what else ''}; {reason}"
            for node, function, what, done, reason in self.rows()
        ]
        return "\n".join([*lines, self.summary()])
