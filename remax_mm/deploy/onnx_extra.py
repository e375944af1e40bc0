"""The packages of the extra `onnx`, which are imported where they are needed."""
import importlib
from types import ModuleType


def import_onnx() -> ModuleType:
    """The package onnx; onnxscript and onnxruntime are there too.

    Raises:
        ImportError: one of them is missing.
    """
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f'Expected the package {name}; the extra `onnx` has it: pip install "remax_mm[onnx]"'
            ) from error
    return importlib.import_module('onnx')
