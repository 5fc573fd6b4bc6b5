"""The benchmark: each figure against another route to it, forms that leave the network alone; no time is asserted."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from rsconvert.errors import ConfigError, ResolutionError
from rsconvert.evaluation import Benchmark, machine_key, measure_costs, multiply_adds
from rsconvert.evaluation.benchmark import FORMS, check_forms, paths_in_form
from rsconvert.surgery import SwitchableModel, make_switchable


@pytest.fixture(scope="module")
def found() -> Benchmark:
    return measure_costs(small(), (32, 24), batch_sizes=(1, 3), forms=("plain", "channels_last"), rounds=2)


def small() -> SwitchableModel:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    return make_switchable(model, (32, 16))


def test_there_is_a_row_for_each_combination(found: Benchmark) -> None:
    kinds = [(cost.form, cost.resolution, cost.batch_size) for cost in found.costs]
    assert kinds == [(f, r, b) for f in ("plain", "channels_last") for r in (32, 24) for b in (1, 3)]
    assert (found.machine, found.amp, found.rounds) == (machine_key(torch.device("cpu")), "off", 2)
    assert (found.switching.trained, found.switching.untrained, found.switching.create_ms) == (16, 24, None)


def test_figures_are_those_of_other_routes(found: Benchmark) -> None:
    for cost in found.costs:
        positions = cost.resolution**2
        assert cost.multiply_adds == positions * 8 * 3 * 9 + 8 * 5 == multiply_adds(small().at(32), cost.resolution)
        assert cost.parameters == 8 * 3 * 9 + 2 * 8 + 8 * 5 + 5
        # The convolution's and the BatchNorm's results are alive at once.
        assert cost.peak_memory_bytes == 2 * cost.batch_size * 8 * positions * 4
        assert 0 < cost.latency_ms <= cost.p95_ms
        assert cost.images_per_second == pytest.approx(cost.batch_size / cost.latency_ms * 1000)


def test_modes_and_threads_are_left_as_they_were() -> None:
    net, threads = small().train(), torch.get_num_threads()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = measure_costs(net, rounds=1, threads=threads + 1)
    assert f"; {threads + 1} threads;" in found.machine
    assert torch.get_num_threads() == threads
    assert all(m.training for r in net.resolutions for m in net.at(r).modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_autocast_runs_and_is_named() -> None:
    seen = []
    net = small()
    net.at(32)[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    assert measure_costs(net, (32,), rounds=1, amp=torch.bfloat16).amp == "bf16"
    assert set(seen) == {torch.bfloat16, torch.float32}  # multiply-adds are counted without


def test_a_compiled_path_s_memory_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: compiler(model, dynamic=dynamic, backend="eager"))
    lines: list[str] = []
    found = measure_costs(small(), forms=("compiled",), rounds=1, log=lines.append)
    assert [cost.peak_memory_bytes for cost in found.costs] == [None, None]
    assert [cost.multiply_adds for cost in found.costs] == [r * r * 216 + 40 for r in (32, 16)]
    assert "compiled" in lines[0]


def test_a_folded_path_is_measured_as_it_is() -> None:
    pytest.importorskip("rsconvert.surgery.folding")
    (cost,) = measure_costs(small(), (16,), forms=("folded",), rounds=1).costs
    assert cost.parameters == 8 * 3 * 9 + 8 + 8 * 5 + 5  # a bias in the place of γ and β
    assert cost.multiply_adds == 16 * 16 * 216 + 40


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"forms": ("plan",)}, "form is 'plan'"),
        ({"batch_sizes": (2, 2)}, "batch_sizes has 2 twice: 2,2"),
        ({"batch_sizes": ()}, "batch_sizes is empty"),
        ({"batch_sizes": ("x",)}, "batch_sizes is 'x'"),
        ({"batch_sizes": (0,)}, "batch_sizes is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 10**6}, "threads is 1000000; this machine has"),
        ({"amp": torch.float64}, "amp is torch.float64"),
    ],
)
def test_mistakes_are_told(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        measure_costs(small(), **arguments)


def test_a_size_that_does_not_work_is_told() -> None:
    net = make_switchable(nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4)), (32, 16))
    with pytest.raises(ResolutionError, match="resolution 4 does not work in form plain with batches of 1") as caught:
        measure_costs(net, (4,), rounds=1)
    assert "\n" not in str(caught.value)


def test_a_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(graph: object, inputs: object) -> None:
        raise RuntimeError("no compiler\nfound")

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: compiler(model, dynamic=dynamic, backend=fail))
    with pytest.raises(ConfigError, match=r"form is compiled, which fails here .*no compiler found") as caught:
        measure_costs(small(), forms=("compiled",), rounds=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "int8"])
def test_a_form_computes_what_the_path_computes(net: SwitchableModel, form: str, monkeypatch) -> None:
    if form == "folded":
        pytest.importorskip("rsconvert.surgery.folding")
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: compiler(model, dynamic=dynamic, backend="eager"))
    paths = paths_in_form(net, form, (64, 40))
    assert list(paths) == [64, 40]
    with torch.inference_mode():
        for resolution, path in paths.items():
            x = torch.rand(2, 3, resolution, resolution)
            torch.testing.assert_close(path.eval()(x), net.at(resolution)(x), rtol=1e-4, atol=1e-5)
    assert all(p.is_contiguous() for p in net.parameters())


def test_channels_last_is_what_it_says(net: SwitchableModel) -> None:
    path = paths_in_form(net, "channels_last", (64,))[64]
    kernels = [p for p in path.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert not all(p.is_contiguous() for p in kernels)
    assert {id(p) for p in path.parameters()}.isdisjoint(id(p) for p in net.parameters())


@pytest.mark.parametrize(
    ("forms", "words"),
    [
        ([], "forms is empty; plain, channels_last, compiled, folded, int8 are accepted"),
        (["plane"], "form is 'plane'; .* Did you mean plain?"),
        (["xyz"], r"form is 'xyz'; plain, .* are accepted\.$"),
        (["plain", "plain"], "forms has plain twice: plain,plain"),
    ],
)
def test_unusable_forms_are_refused(forms: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_forms(forms)


def test_forms_keep_their_order() -> None:
    assert check_forms(["folded", "plain"]) == ("folded", "plain")


def test_other_software_makes_its_own_paths(net: SwitchableModel) -> None:
    with pytest.raises(ConfigError, match=r"^form is int8, and nothing makes its paths\. Give makers="):
        measure_costs(net, forms=("int8",))
    asked = []

    def make(given: SwitchableModel, resolutions: Sequence[int]) -> dict[int, torch.nn.Module]:
        asked.append((given, tuple(resolutions)))
        return {r: given.at(r) for r in resolutions}

    found = measure_costs(net, (64, 40), forms=("int8", "plain"), rounds=1, makers={"int8": make})
    assert asked == [(net, (64, 40))]
    assert {cost.peak_memory_bytes for cost in found.costs if cost.form == "int8"} == {None}
    with_top1 = found.with_scores({64: 90.0, 40: 80.0}, net.source.task.metric, {64: 89.0})
    assert {(c.form, c.resolution): c.top1 for c in with_top1.costs} == {
        ("int8", 64): 89.0,
        ("int8", 40): None,
        ("plain", 64): 90.0,
        ("plain", 40): 80.0,
    }
