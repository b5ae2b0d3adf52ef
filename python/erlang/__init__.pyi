from typing import Any, SupportsIndex, final

__all__ = ["CallInterrupted", "Pid", "Ref", "Term", "in_beam", "send", "whereis"]
__version__: str

class CallInterrupted(BaseException): ...

class _Term:
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

