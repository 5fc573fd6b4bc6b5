"""One training step of RefineNet-101 at several resolutions, on the CPU: parameters, time and memory.

    python benchmarks/refinenet.py

The paper's setting of its appendix B: 40 classes, 352, 224 and 96 pixels. The images are noise; the loss is MRED on the
grid of the largest logits. The memory is the largest resident size of the process, weights and momenta included.
"""

import argparse
import resource
import runpy
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rsconvert

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "examples" / "refinenet.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--resolutions", default="352,224,96", help="sides in pixels (352,224,96)")
    parser.add_argument("--batch", type=int, default=2, help="images per step (2)")
    options = parser.parse_args()
    resolutions = [int(word) for word in options.resolutions.split(",")]
    torch.manual_seed(0)
    model = runpy.run_path(str(EXAMPLE))["build"](num_classes=40)
    before = sum(p.numel() for p in model.parameters())
    net = rsconvert.make_switchable(model, resolutions, task="segmentation")
    del model
    after = sum(p.numel() for p in net.parameters()) - net.alpha.numel()
    print(
        f"parameters {before:,}, with {len(resolutions) - 1} more BN sets {after:,}; {torch.get_num_threads()} threads"
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    views = [torch.randn(options.batch, 3, side, side) for side in net.resolutions]
    start = time.perf_counter()
    loss = step(net.train(), optimizer, views)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    finite = all(bool(torch.isfinite(p).all()) for p in net.parameters())
    print(f"loss, a sum over resolutions: {loss:.3f}; weights finite: {finite}")
    print(f"one step, batch {options.batch}: {seconds:.1f} s; largest resident size {peak:.2f} GiB")


def step(net: rsconvert.SwitchableModel, optimizer: torch.optim.Optimizer, views: list[torch.Tensor]) -> float:
    """Train for one step on random labels; return the loss."""
    logits = net(views=views)
    grid = logits[0].shape[-2:]
    target = torch.randint(40, (len(views[0]), *grid))
    resized = [F.interpolate(own, size=grid, mode="bilinear", align_corners=False) for own in logits]
    loss = rsconvert.mred_loss(resized, target, net.alpha, ignore_index=255).total
    loss.backward()
    optimizer.step()
    return loss.item()


if __name__ == "__main__":
    main()
