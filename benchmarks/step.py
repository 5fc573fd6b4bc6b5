"""Times one S-view training step against a reference, on the CPU or a GPU.

    python benchmarks/step.py
    python benchmarks/step.py --amp bf16 --reference float32
    python benchmarks/step.py --low-memory --reference whole
    python benchmarks/step.py --views sandwich --reference whole --rounds 15
    python benchmarks/step.py --model resnet50 --amp bf16 --device cuda --batch 128 --compile default

The reference is S plain steps of the source model, one per resolution, in the same precision and memory format
(forward, cross entropy, backward, step of timm's own optimizer); or the S-view step itself in float32 and contiguous
memory; or the S-view step with all views at once. Both sides run alternately on the same views; the figure is the ratio
of the medians. With --views each step draws its views, and the ratio that the multiply-adds let expect is printed too.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert import FinetuneConfig, create_model, make_switchable
from rsconvert.data.loading import draw_places
from rsconvert.evaluation import Processes, measure_latency, multiply_adds
from rsconvert.training import keep_freed_memory
from rsconvert.training.step.stepper import Stepper

RESOLUTIONS = (224, 192, 160, 128, 96)
Step = Callable[[Sequence[Tensor], Tensor], None]


def main() -> None:
    options = parse_arguments()
    if not (options.low_memory or options.usual_allocator):  # as the finetune command does
        keep_freed_memory()
    device = torch.device(options.device)
    views, target = batch(options.batch, device)
    steps = [switchable_step(options, device), reference_step(options, device)]
    runs = {i: partial(step, views, target) for i, step in enumerate(steps)}
    found = measure_latency(runs, rounds=options.rounds, warm_up=2, device=device)
    whole, reference = (time.median_ms for time in found.values())
    words = f"{options.amp}, {options.format}, compile {options.compile}, views {options.views}"
    words += ", low memory" * options.low_memory
    print(f"{options.model}, batch {options.batch}, {words}, {device}, {torch.get_num_threads()} threads")
    print(f"S-view step {whole:.1f} ms, reference ({options.reference}) {reference:.1f} ms")
    print(f"{1e3 * options.batch / whole:.1f} images/s")
    print(f"ratio {whole / reference:.3f}")
    if options.views != "all":
        print(f"multiply-adds of the drawn views over those of all {share_of_multiply_adds(options):.3f}")
    if options.profile:
        print_profile(steps[0], views, target)


def share_of_multiply_adds(options: argparse.Namespace) -> float:
    net = make_switchable(create_model(options.model), RESOLUTIONS)
    first, *between, last = (multiply_adds(net.at(r), r) for r in RESOLUTIONS)
    drawn = FinetuneConfig(views=options.views).drawn_views(len(RESOLUTIONS)) - 2
    return (first + drawn * sum(between) / len(between) + last) / (first + sum(between) + last)


def print_profile(step: Step, views: list[Tensor], target: Tensor) -> None:
    """Print the operations that take most of a step's own time."""
    with torch.profiler.profile() as profiler:
        step(views, target)
    on_gpu = views[0].device.type == "cuda"
    times = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in profiler.key_averages()}
    for name, time_us in sorted(times.items(), key=lambda pair: -pair[1])[:8]:
        print(f"{100 * time_us / sum(times.values()):5.1f} %  {name}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="resnet18", help="a timm name")
    parser.add_argument("--batch", type=int, default=16, help="images per step (16)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each kind (7)")
    parser.add_argument("--amp", choices=["off", "bf16"], default="off")
    parser.add_argument("--format", choices=["channels_last", "contiguous"], default="channels_last")
    parser.add_argument("--compile", default="off", help="torch.compile's mode (off)")
    parser.add_argument("--views", default="all", type=lambda text: int(text) if text.isdecimal() else text)
    parser.add_argument("--low-memory", action="store_true", help="view by view")
    parser.add_argument("--usual-allocator", action="store_true", help="give freed memory back to the system")
    parser.add_argument("--reference", choices=["plain", "float32", "whole"], default="plain", help="(plain)")
    parser.add_argument("--profile", action="store_true", help="print where the time of a step goes")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def batch(size: int, device: torch.device) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(size, 3, r, r, generator=generator) for r in RESOLUTIONS]
    target = torch.randint(1000, (size,), generator=generator)
    return [v.to(device) for v in views], target.to(device)


def reference_step(options: argparse.Namespace, device: torch.device) -> Step:
    if options.reference == "plain":
        return plain_steps(options, device)
    changes = {"float32": {"amp": "off", "format": "contiguous"}, "whole": {"low_memory": False, "views": "all"}}
    return switchable_step(argparse.Namespace(**{**vars(options), **changes[options.reference]}), device)


def switchable_step(options: argparse.Namespace, device: torch.device) -> Step:
    amp, layout = in_words(options)
    own = {name: getattr(options, name) for name in ("views", "low_memory", "compile")}
    config = FinetuneConfig(optimizer="momentum", lr=1e-4, **own)
    net = make_switchable(create_model(options.model), RESOLUTIONS)
    net.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    stepper = Stepper(net, config, 1000, amp or torch.float32, Processes(0, 1, device))
    stepper.objective.train()
    numbers = itertools.count()

    def step(views: Sequence[Tensor], target: Tensor) -> None:
        drawn = draw_places(len(views), config.drawn_views(len(views)), seed=0, epoch=0, batch=next(numbers))
        chosen = [view if place in drawn else view[..., :0, :0] for place, view in enumerate(views)]
        stepper.add([view.contiguous(memory_format=layout) for view in chosen], target, last=True)
        stepper.step(1)

    return step


def plain_steps(options: argparse.Namespace, device: torch.device) -> Step:
    amp, layout = in_words(options)
    model: nn.Module = create_model(options.model).to(device=device, memory_format=layout).train()  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(model, opt="momentum", lr=1e-4)
    run = model if options.compile == "off" else torch.compile(model, dynamic=False, mode=options.compile)

    def step(views: Sequence[Tensor], target: Tensor) -> None:
        for view in views:
            optimizer.zero_grad()
            with torch.autocast(device.type, amp) if amp else nullcontext():
                logits = run(view.contiguous(memory_format=layout))
            F.cross_entropy(logits.float(), target).backward()
            optimizer.step()

    return step


def in_words(options: argparse.Namespace) -> tuple[torch.dtype | None, torch.memory_format]:
    amp = {"off": None, "bf16": torch.bfloat16}[options.amp]
    return amp, {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[options.format]


if __name__ == "__main__":
    main()
