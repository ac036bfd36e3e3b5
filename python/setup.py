"""Names without a Python ABI, for the wheel and for the library in it: the library uses nothing of Python.

All else is in pyproject.toml.
"""

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class AnyPython(bdist_wheel):
    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


class PlainName(build_ext):
    def get_ext_filename(self, fullname):
        return fullname.replace(".", "/") + ".so"


setup(cmdclass={"bdist_wheel": AnyPython, "build_ext": PlainName})
