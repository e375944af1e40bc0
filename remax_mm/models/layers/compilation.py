"""What torch.compile compiles, and what it leaves to Python."""
from functools import wraps
from typing import Any, Callable, TypeVar, cast

import torch

Function = TypeVar('Function', bound=Callable[..., Any])


def is_compiling() -> bool:
    """Whether torch.compile traces the calling code; always False before torch 2.1."""
    ask = getattr(getattr(torch, 'compiler', None), 'is_compiling', None)
    return ask is not None and ask()


def not_compiled(function: Function) -> Function:
    """Decorator of a function that torch.compile calls as it is, in a graph break.

    For code that reads values on the host, or whose tensors have other sizes in each batch. Without this
    decorator, the compiler finds several breaks in such code and gives up a function that it compiled again
    for too many sizes. ``torch.compiler.disable`` does the same, but imports the compiler at once.
    """

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return cast(Function, run)
