"""llmd's exceptions. Each derives from Error and from the built-in that fits it best."""


class Error(RuntimeError):
    """Something llmd was asked to do failed. `code` is the gRPC status name, such as "INVALID_ARGUMENT"."""

    def __init__(self, message: str, code: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.code = code


class InvalidArgumentError(Error, ValueError):
    """An argument, body or configuration breaks a rule; the message names it."""


class OutOfRangeError(Error, IndexError):
    """An index or id is outside its range."""


class NotFoundError(Error, LookupError):
    """A file, model or name does not exist."""


class PermissionDeniedError(Error, PermissionError):
    """The operating system refused."""


class ResourceExhaustedError(Error, MemoryError):
    """A queue, table or pool is full."""


class DeadlineExceededError(Error, TimeoutError):
    """It took longer than allowed."""


class UnimplementedError(Error, NotImplementedError):
    """Valid, but not built."""


class UnavailableError(Error, ConnectionError):
    """A peer cannot be reached."""
