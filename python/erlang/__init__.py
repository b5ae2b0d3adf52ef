"""Erlang and Python in one process, joined by byte streams.

Inside the BEAM, where the OTP application ``causeway`` runs this Python, the functions here talk to
Erlang. In a plain ``python3`` what needs a BEAM raises ``RuntimeError``, and everything else works:
the protocols of ``erlang.reactor`` can be driven by hand there.

``CallInterrupted`` is raised inside a call whose Erlang caller has given it up. It is no ``Exception``,
so that ``except Exception`` lets it through.
"""

from _causeway import CallInterrupted, Pid, Ref, Term, in_beam, send, whereis

__all__ = ["CallInterrupted", "Pid", "Ref", "Term", "in_beam", "send", "whereis"]
__version__ = "0.1.0"
