from _causeway import CallInterrupted as CallInterrupted
from _causeway import Pid as Pid
from _causeway import Ref as Ref
from _causeway import Term as Term
from _causeway import in_beam as in_beam
from _causeway import send as send
from _causeway import whereis as whereis

__all__ = ["CallInterrupted", "Pid", "Ref", "Term", "in_beam", "send", "whereis"]
__version__: str
