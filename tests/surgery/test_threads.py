"""Reads from many threads: eight threads at mixed sizes get the bits that one gets."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from rsconvert.models import create_model
from rsconvert.surgery import SwitchableModel, make_switchable

RESOLUTIONS, UNTRAINED = (64, 48, 32), (80, 56, 40, 24)
THREADS = 8


def reads(net: SwitchableModel, held: dict[int, nn.Module], x: Tensor) -> list[Tensor]:
    """The ways to read at the size of an image: by the network, by a path taken now, by one taken before."""
    side = x.shape[-1]
    with torch.no_grad():
        return [net(x), net.at(side)(x), held[side](x)]


def in_threads(net: SwitchableModel, images: dict[int, Tensor]) -> list[tuple[int, list[Tensor]]]:
    """What eight threads read that start together, each at all sizes, from another one on."""
    held = {side: net.at(side) for side in images}
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> list[tuple[int, list[Tensor]]]:
        barrier.wait(60)
        order = [*images, *images][number % len(images) :][: len(images)]
        copied = net.extract(order[0])(images[order[0]])
        return [(order[0], [copied]), *((side, reads(net, held, images[side])) for side in order)]

    with ThreadPoolExecutor(THREADS) as pool:
        return list(itertools.chain.from_iterable(pool.map(run, range(THREADS))))


@pytest.mark.parametrize(
    ("name", "resolutions", "untrained"),
    [
        ("test_efficientnet", RESOLUTIONS, UNTRAINED),
        ("resnet10t", RESOLUTIONS, UNTRAINED),
        ("levit_128s", (96, 64), (80,)),  # built again at each untrained size
    ],
)
def test_eight_threads_get_what_one_gets(
    name: str,
    resolutions: tuple[int, ...],
    untrained: tuple[int, ...],
    write_all: Callable[[SwitchableModel], SwitchableModel],
    image: Callable[..., Tensor],
) -> None:
    net = write_all(make_switchable(create_model(name, num_classes=5), resolutions)).eval()
    images = {side: image(side) for side in (*resolutions, *untrained)}
    wanted = {side: reads(net, {side: net.at(side)}, x) for side, x in images.items()}
    values = {key: value.clone() for key, value in net.state_dict().items()}
    assert all(torch.equal(one, wanted[side][0]) for side in images for one in wanted[side])
    assert len({float(outputs[0].sum()) for outputs in wanted.values()}) == len(images), "the sizes must differ"
    found = in_threads(net, images)
    assert len(found) == THREADS * (1 + len(images))
    assert all(torch.equal(one, wanted[side][0]) for side, outputs in found for one in outputs)
    assert all(torch.equal(value, values[key]) for key, value in net.state_dict().items()), "reads write nothing"
