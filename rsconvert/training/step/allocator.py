"""The C library's allocator, told to keep the memory that a step frees for the next one."""

import ctypes

__all__ = ["keep_freed_memory"]

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep freed memory; return whether the C library can.

    Left alone, glibc gives every large tensor back to the system when it is freed, and a step on a CPU pays for getting
    each of its pages again. The process holds about a tenth more memory for it. It is a setting of the whole process,
    so a program calls it, never a library's function.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # macOS, Windows, musl
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
