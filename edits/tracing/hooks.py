"""Watch and replace what modules of a running network read and write."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Before = tuple[nn.Module, Callable[..., Any]]
After = tuple[nn.Module, Callable[..., Any]]


@contextmanager
def hooked(before: Iterable[Before] = (), after: Iterable[After] = ()) -> Iterator[None]:
    """Run `before` (module, args, kwargs) and `after` (module, args, output) hooks meanwhile."""
    with ExitStack() as stack:
        for module, hook in before:
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        for module, hook in after:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def answering(answers: Iterable[tuple[nn.Module, Any]]) -> Iterator[None]:
    """Let modules answer these outputs without running; their hooks still fire."""
    changed: list[nn.Module] = []
    try:
        for module, answer in answers:
            module.forward = lambda *_args, _answer=answer, **_kwargs: _answer
            changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def first(output: Any) -> Tensor:
    """The hidden states of a module's output: attention and T5 answer tuples."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def with_first(output: Any, hidden: Tensor) -> Any:
    """The same output with other hidden states."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
