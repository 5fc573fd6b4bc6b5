"""Times conversions: the analysis, replacement and sharing of tensors; the forwards; the creation of the model.

The reference is one copy.deepcopy of the model, made in the same run, alternately; five paths, their skeleton and a
copy for the trials are about seven of its structures, three of them without tensors.

    python benchmarks/convert.py
    python benchmarks/convert.py --models efficientvit_l3,nf_regnet_b0 --repeats 5
"""

import argparse
import copy
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsconvert.models import create_model
from rsconvert.surgery import make_switchable

MODELS = "resnet50,efficientnet_b0,densenet201,hrnet_w18"
ROW = "{:24s} {:>9} {:>9} {:>9} {:>9} {:>7}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--models", default=MODELS, help=f"names, separated by commas ({MODELS})")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(
        f"torch {torch.__version__.partition('+')[0]}, {options.threads} threads, medians of {options.repeats}, seconds"
    )
    print(ROW.format("model", "create", "convert", "forwards", "deepcopy", "ratio"))
    for name in options.models.split(","):
        print(ROW.format(name, *measured(name, options.repeats)), flush=True)


def measured(name: str, repeats: int) -> tuple[str, ...]:
    """Return creation, conversion, forwards, the reference, and the ratio of conversion to reference."""
    columns: dict[str, list[float]] = {"create": [], "convert": [], "forwards": [], "deepcopy": []}
    for _ in range(repeats):
        start = time.perf_counter()
        model = create_model(name)
        columns["create"].append(time.perf_counter() - start)
        net = make_switchable(model)
        assert net.report is not None
        for part in ("convert", "forwards"):
            columns[part].append(net.report.seconds[part])
        start = time.perf_counter()
        copy.deepcopy(model)
        columns["deepcopy"].append(time.perf_counter() - start)
    medians = {part: statistics.median(times) for part, times in columns.items()}
    ratio = medians["convert"] / medians["deepcopy"]
    return (*(f"{seconds:.2f}" for seconds in medians.values()), f"{ratio:.1f}")


if __name__ == "__main__":
    main()
