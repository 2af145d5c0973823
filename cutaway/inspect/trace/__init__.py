"""A run kept in one file, read again, and two such runs compared."""

from cutaway.inspect.trace.trace import Trace

__all__ = ["Trace"]
