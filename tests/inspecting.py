"""What the tests of `python -m sepconv inspect` share: its report, and filters of ones."""

import json

import numpy as np
from sepconv import __main__


def inspect(tmp_path, model, *options):
    """The command's report; without times unless `options` ask for them."""
    path = tmp_path / "report.json"
    measuring = [] if "--measure" in options else ["--no-measure"]
    assert __main__.main(["inspect", str(model), "--json", str(path), *measuring, *map(str, options)]) == 0
    return json.loads(path.read_text())


def ones(*shape):
    return np.ones(shape, np.float32)
