"""What a network costs on this machine: at each resolution, in each form, for each batch size."""

import copy
import difflib
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor, nn

from rsconvert.errors import ConfigError, ResolutionError, RSConvertError
from rsconvert.evaluation.cost_table import Benchmark, Cost, machine_key
from rsconvert.evaluation.device import Amp, amp_name, autocast, choose_precision
from rsconvert.evaluation.latency import measure_latency, measure_switching
from rsconvert.evaluation.memory import is_memory_error, peak_memory, plain_memory_errors
from rsconvert.evaluation.sizes import multiply_adds
from rsconvert.models import as_call, example_arguments
from rsconvert.surgery import SwitchableModel, check_resolutions, eval_mode, fold_batchnorm

__all__ = ["FORMS", "check_forms", "measure_costs", "paths_in_form"]

FORMS = ("plain", "channels_last", "compiled", "folded", "int8")
"""As it is; with the channels innermost in memory; by torch.compile; BatchNorms folded into convolutions; in ONNX."""

Makers = Mapping[str, Callable[[SwitchableModel, Sequence[int]], dict[int, nn.Module]]]
"""What makes the paths of forms that other software runs."""

_Key = tuple[str, int, int]  # form, resolution, batch size


def measure_costs(
    net: SwitchableModel,
    resolutions: Sequence[int] | None = None,
    *,
    batch_sizes: Sequence[int] = (1,),
    forms: Sequence[str] = ("plain",),
    rounds: int = 30,
    threads: int | None = None,
    amp: Amp = None,
    create: Callable[[], nn.Module] | None = None,
    makers: Makers | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Benchmark:
    """Measure a network where it is, on random images, in eval mode; its modes are left as they are.

    All forms, resolutions and batch sizes of one call are timed by turns.

    Args:
        resolutions: in pixels, trained or not; None takes the trained ones.
        forms: of ``plain``, ``channels_last``, ``compiled``, ``folded`` and ``int8``.
        rounds: how often each is timed, after three rounds that are not counted.
        threads: of torch on the CPU, for this call; None leaves them as they are.
        amp: the precision of autocast, as of ``evaluate``; None chooses by the network's device.
        create: makes a plain model, whose creation and loading are timed alongside the switching.
        makers: form → what makes its paths; ``int8`` needs ``{"int8": rsconvert.export.int8_paths}``.
        log: takes a line where the work takes long.
    Raises:
        ConfigError: a form is unknown or repeated; a batch size, ``rounds`` or ``threads`` is unusable.
        ResolutionError: a resolution is malformed, or does not work in the network.
        UnsupportedModelError: the network can't be folded.
        TrainingError: memory ran out.
    """
    sides = net.resolutions if resolutions is None else check_resolutions(resolutions)
    forms, sizes = check_forms(forms), _check_batch_sizes(batch_sizes)
    _check_number("rounds", rounds)
    precision = choose_precision(amp, net.alpha.device)
    with _threads(threads), plain_memory_errors(max(sizes), 0), _compilable(len(sides) * len(sizes)):
        paths = {form: paths_in_form(net, form, sides, makers) for form in forms}
        with torch.inference_mode(), eval_mode([p for group in paths.values() for p in group.values()]):
            costs = _measured(paths, sizes, rounds, precision, net.alpha.device, log)
        switching = measure_switching(net, create, rounds=min(rounds, 10))
        machine = machine_key(net.alpha.device)
    return Benchmark(machine=machine, amp=amp_name(precision), rounds=rounds, costs=costs, switching=switching)


def check_forms(forms: Sequence[str]) -> tuple[str, ...]:
    """Return the forms if each is known and comes once.

    Raises:
        ConfigError: one is unknown or repeated, or there is none.
    """
    known = f"{', '.join(FORMS)} are accepted"
    if not forms:
        raise ConfigError(f"forms is empty; {known}.")
    for form in forms:
        if form not in FORMS:
            near = difflib.get_close_matches(str(form), FORMS, n=1)
            raise ConfigError(f"form is {form!r}; {known}.{f' Did you mean {near[0]}?' if near else ''}")
    _check_once("forms", forms)
    return tuple(forms)


def paths_in_form(
    net: SwitchableModel, form: str, resolutions: Sequence[int], makers: Makers | None = None
) -> dict[int, nn.Module]:
    """Return the path of each resolution in a form; ``net`` is left as it is.

    A compiled path is compiled when it first runs, for each size of input.
    """
    if form == "int8":
        if "int8" not in (makers or {}):
            raise ConfigError('form is int8, and nothing makes its paths. Give makers={"int8": export.int8_paths}.')
        return (makers or {})["int8"](net, resolutions)
    if form == "channels_last":
        net = copy.deepcopy(net).to(memory_format=torch.channels_last)
    paths = {r: net.at(r) for r in resolutions}
    if form == "compiled":
        return {r: cast(nn.Module, torch.compile(path, dynamic=False)) for r, path in paths.items()}
    return {r: fold_batchnorm(path, r)[0] for r, path in paths.items()} if form == "folded" else paths


def _measured(
    paths: Mapping[str, Mapping[int, nn.Module]],
    batch_sizes: Sequence[int],
    rounds: int,
    amp: torch.dtype,
    device: torch.device,
    log: Callable[[str], None],
) -> tuple[Cost, ...]:
    runs: dict[_Key, Callable[[], object]] = {}
    memory: dict[_Key, int | None] = {}
    for form, group in paths.items():
        if form == "compiled":
            log("each path is compiled for each batch size, which takes a minute or more")
        for (r, path), batch in product(group.items(), batch_sizes):
            key, given = (form, r, batch), _arguments(path, r, batch, form)
            runs[key] = partial(_run, path, given, amp, device, key)
            tensors = (*path.parameters(), *path.buffers(), *(t for t in given if isinstance(t, Tensor)))
            runs[key]()
            seen = form != "int8" and (form != "compiled" or device.type == "cuda")
            memory[key] = peak_memory(runs[key], device, tensors) if seen else None
    log(f"{len(runs)} runs by turns, {rounds} rounds")
    times = measure_latency(runs, rounds=rounds, device=device)
    costs = []
    for (form, r, batch), time in times.items():
        path = paths[form][r]
        plain: nn.Module = getattr(path, "_orig_mod", path)  # what a compiled path was made from
        costs.append(
            Cost(
                form=form,
                resolution=r,
                batch_size=batch,
                multiply_adds=multiply_adds(plain, r),
                parameters=sum(p.numel() for p in getattr(plain, "computes_as", plain).parameters()),
                latency_ms=time.median_ms,
                p95_ms=time.p95_ms,
                images_per_second=1e3 * batch / time.median_ms,
                peak_memory_bytes=memory[form, r, batch],
            )
        )
    return tuple(costs)


def _run(path: nn.Module, given: tuple[Any, ...], amp: torch.dtype, device: torch.device, key: _Key) -> object:
    try:
        with autocast(device, amp):
            return path(*given)
    except Exception as error:  # whatever the model's own code raises
        if isinstance(error, RSConvertError) or is_memory_error(error):
            raise
        form, r, batch = key
        reason = textwrap.shorten(str(error) or type(error).__name__, 100, placeholder=" …")
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise ConfigError(
                f"form is compiled, which fails here ({reason}). Install a compiler, or drop it."
            ) from error
        raise ResolutionError(
            f"resolution {r} does not work in form {form} with batches of {batch} ({reason}); a size that every layer "
            "takes is needed."
        ) from error


def _arguments(path: nn.Module, resolution: int, batch: int, form: str) -> tuple[Any, ...]:
    given, _ = as_call(example_arguments(path, resolution, batch))
    if form == "channels_last":
        given = tuple(t.contiguous(memory_format=torch.channels_last) if _is_batch(t) else t for t in given)
    return given


def _is_batch(given: object) -> bool:
    return isinstance(given, Tensor) and given.ndim == 4


def _check_batch_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if not sizes:
        raise ConfigError("batch_sizes is empty; at least one number of images is needed, such as 1,32.")
    for size in sizes:
        _check_number("batch_sizes", size)
    _check_once("batch_sizes", sizes)
    return tuple(sizes)


def _check_once(name: str, values: Sequence[object]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise ConfigError(
                f"{name} has {value} twice: {','.join(map(str, values))}; each is measured once. Remove the repeat."
            )


def _check_number(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name} is {value!r}; whole numbers of at least 1 are accepted.")


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None:
        _check_number("threads", threads)
        if threads > 4 * (cores := os.cpu_count() or threads):  # of which the system may kill the process
            raise ConfigError(f"threads is {threads}; this machine has {cores} cores. Lower it.")
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compilable(versions: int) -> Any:
    """Allow torch.compile a version of the code for each input; beyond torch's limit of 8 they would run uncompiled."""
    return torch._dynamo.config.patch(recompile_limit=max(8, 2 * versions))
