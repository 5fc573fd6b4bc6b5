"""The best path within a budget of time or of multiply-adds."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import nn

from rsconvert.errors import ConfigError
from rsconvert.evaluation import Amp, amp_name, check_forms, choose_precision, differences, machine_key, stored_costs
from rsconvert.evaluation import multiply_adds as count
from rsconvert.surgery import SwitchableModel, copy_structure

__all__ = ["for_budget", "resolution_for_budget"]

_STEP = 16
_Row = Mapping[str, Any]


def for_budget(
    net: SwitchableModel,
    *,
    latency_ms: float | None = None,
    multiply_adds: float | None = None,
    form: str = "plain",
    batch_size: int = 1,
    amp: Amp = None,
) -> nn.Module:
    """Return the best path within a budget, in eval mode; see `resolution_for_budget`, which chooses it.

    ``path.resolution`` is its resolution in pixels, unless the source has an attribute of that name, which stays. The
    modules of the path are its own, so its mode is too; its tensors are those of ``net.at``. ``form`` says which
    latencies count; the path itself is plain.
    """
    chosen = resolution_for_budget(
        net, latency_ms=latency_ms, multiply_adds=multiply_adds, form=form, batch_size=batch_size, amp=amp
    )
    path = net.at(chosen)
    if chosen in net.resolutions:  # a live path, which follows the network's mode
        path = copy_structure(path)
    if not hasattr(path, "resolution"):
        cast(Any, path).resolution = chosen
    return path.eval()


def resolution_for_budget(
    net: SwitchableModel,
    *,
    latency_ms: float | None = None,
    multiply_adds: float | None = None,
    form: str = "plain",
    batch_size: int = 1,
    amp: Amp = None,
) -> int:
    """Return the resolution in pixels, trained or not, of the best path within a budget.

    The best has the highest top-1 in the table that ``rsconvert benchmark --store`` keeps in the checkpoint; where the
    table has no top-1, the largest resolution. A latency is looked up in the table. Multiply-adds are too if the table
    has a top-1; else they are counted, at the trained resolutions and at every multiple of 16 between them, unless the
    network is built again for each size.

    Args:
        latency_ms: of one batch on this machine, the median, in milliseconds.
        multiply_adds: of one image.
        form: of the latencies that are looked up, such as ``folded``.
        batch_size: of these latencies.
        amp: the precision of autocast of these latencies, None that which ``benchmark`` takes by itself on the
            network's device.
    Raises:
        ConfigError: not exactly one budget is given; it is below what the cheapest path costs; the table has no
            latency of this machine, or none for the form, the batch size and the precision.
    """
    budgets = {"latency_ms": latency_ms, "multiply_adds": multiply_adds}
    given = {name: value for name, value in budgets.items() if value is not None}
    if len(given) != 1:
        raise ConfigError(f"the budget is {given or 'empty'}; exactly one of latency_ms and multiply_adds is needed.")
    ((name, budget),) = given.items()
    if not budget > 0:
        raise ConfigError(f"{name} is {budget}; a number above 0 is accepted.")
    score = net.source.task.metric.key
    if latency_ms is not None:
        return _best(_measured_here(net, form, batch_size, amp), name, budget, score)
    rows = [row for rows in stored_costs(net).values() for row in rows if row.get(score) is not None]
    return _best(rows, name, budget, score) if rows else _largest(net, budget)


def _measured_here(net: SwitchableModel, form: str, batch_size: int, amp: Amp) -> list[_Row]:
    """Return the rows of this machine, form, batch size and precision."""
    check_forms([form])
    stored, here = stored_costs(net), machine_key(net.alpha.device)
    if here not in stored:
        others = "; ".join(f"those of {there!r} ({differences(here, there)})" for there in stored)
        known = f"of this machine, {here!r}, but {others}; another machine's milliseconds say nothing here"
        what = known if stored else f"yet; those of this machine, {here!r}, are needed"
        raise ConfigError(
            f"the network holds no latencies {what}. Measure them: rsconvert benchmark CHECKPOINT --store."
        )
    wanted = {"form": form, "batch_size": batch_size, "amp": amp_name(choose_precision(amp, net.alpha.device))}
    rows = [row for row in stored[here] if wanted.items() <= row.items()]
    if not rows:
        held = sorted({_kind(row) for row in stored[here]})
        raise ConfigError(
            f"the network holds no latencies of {_kind(wanted)}; it holds those of {', '.join(held)}. "
            "Choose among them, or measure: rsconvert benchmark CHECKPOINT --store."
        )
    return rows


def _kind(row: _Row) -> str:
    return f"{row['form']} with batches of {row['batch_size']} and amp {row['amp']}"


def _best(rows: Sequence[_Row], name: str, budget: float, score: str) -> int:
    """Return the resolution of the row with the highest score within a budget; of equals the cheaper."""
    fitting = [row for row in rows if row[name] <= budget]
    if not fitting:
        cheapest = min(rows, key=lambda row: row[name])
        raise _below(name, budget, cheapest[name], cheapest["resolution"])
    if any(row.get(score) is None for row in fitting):
        return int(max(row["resolution"] for row in fitting))
    return int(max(fitting, key=lambda row: (row[score], -row[name]))["resolution"])


def _largest(net: SwitchableModel, budget: float) -> int:
    """Return the largest resolution within a budget of multiply-adds, which grow with the resolution."""
    low, high = net.resolutions[-1], net.resolutions[0]
    between = range(-(-low // _STEP) * _STEP, high, _STEP) if net.build is None else ()
    sides = sorted({*net.resolutions, *between})
    place = bisect_right(sides, budget, key=lambda side: count(net.at(side), side))
    if place == 0:
        raise _below("multiply_adds", budget, count(net.at(low), low), low)
    return int(sides[place - 1])


def _below(name: str, budget: float, cost: float, resolution: int) -> ConfigError:
    given, least = (_with_unit(name, value) for value in (budget, cost))
    return ConfigError(
        f"{name} is {given}; the cheapest path, of {resolution} pixels, takes {least}. Raise it, or train a smaller "
        "resolution."
    )


def _with_unit(name: str, value: float) -> str:
    if name == "latency_ms":
        return f"{value:.3g} ms"
    return f"{value / 1e6:.4g} M" if value >= 1e5 else f"{value:.12g}"
