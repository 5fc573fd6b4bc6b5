"""What all tests share. Small models run fastest on one thread; more only get into each other's way."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def full_disk() -> Callable[[], AbstractContextManager[None]]:
    """Within it the system itself refuses to let a file grow beyond 2,000 bytes."""

    @contextmanager
    def limited() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
