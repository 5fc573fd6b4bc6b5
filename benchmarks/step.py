"""Times one S-view training step against the S plain steps it stands for, on the CPU or a GPU.

    python benchmarks/step.py
    python benchmarks/step.py --model mobilenetv2_100 --amp bf16 --device cuda --batch 128

A plain step is forward, cross entropy, backward and optimizer step of the source model at one resolution, in the
same precision and memory format. Both sides run by turns on the same views; the figure is the ratio of the medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert import FinetuneConfig, create_model, make_switchable
from rsconvert.training import Objective
from rsconvert.training.optimizer import create_optimizer

RESOLUTIONS = (224, 192, 160, 128, 96)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="resnet18", help="a timm name")
    parser.add_argument("--batch", type=int, default=16, help="images per step (16)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each kind (7)")
    parser.add_argument("--amp", choices=["off", "bf16"], default="off")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    amp = {"off": None, "bf16": torch.bfloat16}[options.amp]
    views, target = batch(options.batch, device)
    kinds = [switchable_step(options.model, amp, device), plain_steps(options.model, amp, device)]
    switchable, plain = by_turns(kinds, views, target, options.rounds, device)
    threads = torch.get_num_threads()
    print(f"{options.model}, batch {options.batch}, {options.amp}, {device}, {threads} threads, channels_last")
    print(f"S-view step {1e3 * switchable:.1f} ms, sum of {len(RESOLUTIONS)} plain steps {1e3 * plain:.1f} ms")
    print(f"ratio {switchable / plain:.3f}")


Step = Callable[[Sequence[Tensor], Tensor], None]


def batch(size: int, device: torch.device) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(size, 3, r, r, generator=generator) for r in RESOLUTIONS]
    target = torch.randint(1000, (size,), generator=generator)
    return [v.to(device, memory_format=torch.channels_last) for v in views], target.to(device)


def switchable_step(name: str, amp: torch.dtype | None, device: torch.device) -> Step:
    config = FinetuneConfig(optimizer="momentum", lr=1e-4)
    net = make_switchable(create_model(name), RESOLUTIONS).to(device)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = Objective(net, config, amp).train()
    optimizer = create_optimizer(net, config)

    def step(views: Sequence[Tensor], target: Tensor) -> None:
        optimizer.zero_grad()
        objective(views, target).total.backward()
        optimizer.step()

    return step


def plain_steps(name: str, amp: torch.dtype | None, device: torch.device) -> Step:
    model: nn.Module = create_model(name).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step(views: Sequence[Tensor], target: Tensor) -> None:
        for view in views:
            optimizer.zero_grad()
            with torch.autocast(device.type, amp) if amp else nullcontext():
                logits = model(view)
            F.cross_entropy(logits.float(), target).backward()
            optimizer.step()

    return step


def by_turns(steps: list[Step], views: list[Tensor], target: Tensor, rounds: int, device: torch.device) -> list[float]:
    times: list[list[float]] = [[] for _ in steps]
    for i in range(rounds + 2):
        for j in (0, 1) if i % 2 else (1, 0):
            start = time.perf_counter()
            steps[j](views, target)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[j].append(time.perf_counter() - start)
    return [statistics.median(column[2:]) for column in times]


if __name__ == "__main__":
    main()
