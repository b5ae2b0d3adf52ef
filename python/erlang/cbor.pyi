from typing import Any

from typing_extensions import Buffer

__all__ = ["dumps", "loads"]

def dumps(value: Any) -> bytes: ...
def loads(data: Buffer) -> Any: ...
