"""What `import sepconv` says where something is missing."""

import re
import subprocess
import sys

import pytest

MISSING = {
    "sys.modules['tensorflow'] = None": "sepconv needs TensorFlow 2.12 or newer .* pip install tensorflow-cpu",
    "sys.platform = 'sunos'": "built for Linux on x86-64, and this is sunos",
}


@pytest.mark.parametrize("change", MISSING)
def test_what_is_missing_is_named(change):
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; {change}; import sepconv"], capture_output=True, text=True
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 1 and re.search(MISSING[change], last), ended.stderr
