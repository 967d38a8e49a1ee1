"""A disk that is full, without root: no file can grow beyond a size."""

import contextlib
import resource


@contextlib.contextmanager
def room_for(size):
    """Inside, a file of more bytes than `size` cannot be written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
