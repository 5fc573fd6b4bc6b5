"""A network comes back from its file as it was, and a file makes nothing happen but that."""

import errno
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import rsconvert
from rsconvert.checkpoint import read_metadata, subset
from rsconvert.checkpoint import tensors as tensors_module
from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, ResolutionError
from rsconvert.models import Source, source_of
from rsconvert.surgery import Measured, SwitchableModel, batchnorms

SIDES = (70, 64, 56, 48, 40, 32, 24)  # trained, between, and beyond both ends


def outputs(net: SwitchableModel, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return [net.eval()(torch.rand(2, 3, side, side, generator=generator).to(dtype)) for side in SIDES]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def assert_same_file(one: Path, other: Path) -> None:
    mine, theirs = load_file(one), load_file(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert read_metadata(one) == read_metadata(other)


def rewrite(
    path: Path, change: Callable[[dict[str, torch.Tensor]], None] = lambda tensors: None, **fields: Any
) -> None:
    with safe_open(str(path), framework="pt") as file:
        facts = json.loads(file.metadata()["rsconvert"])
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt", "rsconvert": json.dumps({**facts, **fields})})


def refused(call: Callable[[], Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_round_trip_gives_equal_outputs_at_every_size(net: SwitchableModel, saved: Path) -> None:
    back = rsconvert.load(saved)
    assert isinstance(back, SwitchableModel)
    assert len({tuple(out.flatten().tolist()) for out in outputs(net)}) == len(SIDES)
    assert equal(outputs(back), outputs(net))
    assert torch.equal(back.alpha, net.alpha)
    assert back.source == net.source
    assert all(p.requires_grad for p in back.parameters())


def test_a_loaded_network_saves_to_the_same_file(saved: Path, tmp_path: Path) -> None:
    rsconvert.save(rsconvert.load(saved), tmp_path / "again.safetensors")
    assert_same_file(tmp_path / "again.safetensors", saved)


def test_the_keys_are_those_of_the_specification(net: SwitchableModel, saved: Path) -> None:
    model = timm.create_model("test_efficientnet", num_classes=5)
    private = [key for key in model.state_dict() if key.rpartition(".")[0] in batchnorms(model)]
    at = {f"{key.rpartition('.')[0]}.at.{r}.{key.rpartition('.')[2]}" for key in private for r in (48, 32)}
    held = load_file(saved)
    assert held.keys() == model.state_dict().keys() | at | {"rsconvert.alpha"} == net.state_dict().keys()
    assert held["rsconvert.alpha"].shape == (3,)


def test_stock_timm_gets_the_native_network(net: SwitchableModel, saved: Path) -> None:
    model = timm.create_model("test_efficientnet", num_classes=5).eval()
    missing, unexpected = timm.models.load_checkpoint(model, str(saved), strict=False)
    assert missing == []
    assert all(".at." in key or key == "rsconvert.alpha" for key in unexpected)
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(model(x), net.at(64)(x))


def test_alpha_travels(net: SwitchableModel, tmp_path: Path) -> None:
    net.alpha.data = torch.tensor([0.1, 2.0, -3.0])
    rsconvert.save(net, tmp_path / "x.safetensors")
    assert rsconvert.load(tmp_path / "x.safetensors").alpha.tolist() == net.alpha.tolist()


def test_tied_tensors_are_stored_once_and_tied_again(
    tied_net: SwitchableModel, tied: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    rsconvert.save(tied_net, path)
    held = load_file(path)
    assert "second.weight" not in held
    assert not [key for key in held if key.startswith("again.")]
    back = rsconvert.load(path, tied)
    assert equal(outputs(back), outputs(tied_net))
    assert back.get_parameter("second.weight") is back.get_parameter("first.weight")
    assert back.get_submodule("again") is back.get_submodule("bn")
    assert back.at(48).second.weight is back.at(32).first.weight
    assert len(list(back.parameters())) == len(list(tied_net.parameters()))


@pytest.mark.parametrize("resolution", [64, 48, 32])
def test_tied_tensors_come_with_one_resolution(
    tied_net: SwitchableModel, tied: nn.Module, tmp_path: Path, resolution: int
) -> None:
    rsconvert.save(tied_net, tmp_path / "x.safetensors")
    path = rsconvert.load(tmp_path / "x.safetensors", tied, resolution=resolution).eval()
    x = torch.rand(2, 3, resolution, resolution)
    assert torch.equal(path(x), tied_net.at(resolution)(x))
    assert path.second.weight is path.first.weight


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_survives(tied_net: SwitchableModel, tied: nn.Module, tmp_path: Path, dtype: torch.dtype) -> None:
    rsconvert.save(tied_net.to(dtype), tmp_path / "x.safetensors")
    back = rsconvert.load(tmp_path / "x.safetensors", tied)
    assert {t.dtype for t in back.state_dict().values()} == {dtype, torch.int64}
    assert equal(outputs(back, dtype), outputs(tied_net, dtype))
    assert back.get_parameter("second.weight") is back.get_parameter("first.weight")
    assert back.at(32).bn.weight is back.get_parameter("bn.at.32.weight")
    assert tied.bn.weight.dtype == torch.float32


def test_a_channels_last_network_is_saved(net: SwitchableModel, saved: Path, tmp_path: Path) -> None:
    rsconvert.save(net.to(memory_format=torch.channels_last), tmp_path / "x.safetensors")
    assert_same_file(tmp_path / "x.safetensors", saved)


def test_shared_sets_stay_shared(tmp_path: Path) -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet"), (64, 32), private=False).eval()
    rsconvert.save(net, tmp_path / "x.safetensors")
    assert not [key for key in load_file(tmp_path / "x.safetensors") if ".at." in key]
    back = rsconvert.load(tmp_path / "x.safetensors")
    assert list(back.switchable_bns()) == []
    assert equal(outputs(back), outputs(net))
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(rsconvert.load(tmp_path / "x.safetensors", resolution=32).eval()(x), net.at(32)(x))


@pytest.mark.parametrize("resolution", [64, 48, 32])
def test_one_resolution_reads_its_set_alone(
    net: SwitchableModel, saved: Path, monkeypatch: pytest.MonkeyPatch, resolution: int
) -> None:
    read: list[str] = []

    class Watched:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.file = safe_open(*arguments, **options)

        def __enter__(self) -> "Watched":
            self.file.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self.file.__exit__(*error)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def get_tensor(self, name: str) -> torch.Tensor:
            read.append(name)
            tensor: torch.Tensor = self.file.get_tensor(name)
            return tensor

    monkeypatch.setattr(tensors_module, "safe_open", Watched)
    path = rsconvert.load(saved, resolution=resolution).eval()
    sets = {name for name in net.state_dict() if f".at.{resolution}." in name}
    native = {name.replace(f".at.{resolution}.", ".") for name in sets}
    shared = set(path.state_dict()) - native
    assert len(read) == len(path.state_dict())
    assert set(read) == (shared | sets if resolution != 64 else set(path.state_dict()))
    x = torch.rand(2, 3, resolution, resolution)
    assert torch.equal(path(x), net.at(resolution)(x))
    assert type(path) is type(net.at(resolution))
    assert source_of(path) == net.source


def test_a_resolution_without_a_set_is_refused(saved: Path) -> None:
    refused(lambda: rsconvert.load(saved, resolution=56), r"no set for 56; it holds \(64, 48, 32\)")


def test_a_given_model_stays_unchanged(tied_net: SwitchableModel, tied: nn.Module, tmp_path: Path) -> None:
    rsconvert.save(tied_net, tmp_path / "x.safetensors")
    before = {key: tensor.clone() for key, tensor in tied.state_dict().items()}
    for resolution in (None, 32):
        loaded = rsconvert.load(tmp_path / "x.safetensors", tied, resolution=resolution)
        assert not {p.data_ptr() for p in loaded.parameters()} & {p.data_ptr() for p in tied.parameters()}
    assert all(torch.equal(tensor, before[key]) for key, tensor in tied.state_dict().items())
    assert source_of(tied) == Source()


def test_a_network_without_a_name_needs_a_model(tied_net: SwitchableModel, tmp_path: Path) -> None:
    rsconvert.save(tied_net, tmp_path / "x.safetensors")
    refused(lambda: rsconvert.load(tmp_path / "x.safetensors"), "code without a name.*model=")


def test_a_given_model_tells_its_name_and_the_file_the_rest(net: SwitchableModel, saved: Path, tmp_path: Path) -> None:
    net.source = replace(net.source, architecture=None, weights="a run", class_names=tuple("abcde"))
    rsconvert.save(net, tmp_path / "x.safetensors")
    model = rsconvert.create_model("test_efficientnet", num_classes=5)
    source = rsconvert.load(tmp_path / "x.safetensors", model).source
    assert (source.architecture, source.weights, source.class_names) == ("test_efficientnet", "a run", tuple("abcde"))


def test_a_given_model_tells_its_classes_where_the_file_does_not(saved: Path) -> None:
    rewrite(saved, architecture=None, num_classes=None)
    model = rsconvert.create_model("test_efficientnet", num_classes=5)
    assert rsconvert.load(saved, model).source.num_classes == 5


def test_a_file_from_before_images_were_noted_chooses_by_the_signature(net: SwitchableModel, saved: Path) -> None:
    rewrite(saved, images=None)
    again = rsconvert.load(saved).eval()
    assert [(image.label, image.layout) for image in again.source.images] == [("x", "(N, C, H, W)")]
    for size in ((64, 64), (48, 48), (32, 72), (40, 40)):
        x = torch.rand(2, 3, *size)
        assert torch.equal(again(x), net(x))
        assert torch.equal(again(x=x), net(x=x))
    with pytest.raises(ResolutionError, match=r"images \(N, C, H, W\)"):
        again(torch.rand(2, 48, 48, 3))


@pytest.mark.parametrize("prefix", ["hf-hub:", "HF-HUB:", "hf_hub:", "local-dir:", "Local-Dir:"])
def test_a_name_that_leads_elsewhere_is_refused(saved: Path, tmp_path: Path, prefix: str) -> None:
    rewrite(saved, architecture=f"{prefix}{tmp_path}")
    refused(lambda: rsconvert.load(saved), "only names of timm, torchvision and smp")


def test_a_file_never_has_code_imported(net: SwitchableModel, saved: Path, tmp_path: Path) -> None:
    code, trace = tmp_path / "hostile.py", tmp_path / "trace"
    code.write_text(f"open({str(trace)!r}, 'w').close()\ndef build(**kwargs): raise SystemExit")
    rewrite(saved, architecture=f"{code}:build")
    for resolution in (None, 48):
        refused(lambda r=resolution: rsconvert.load(saved, resolution=r), "--model")
        model = rsconvert.create_model("test_efficientnet", num_classes=5)
        assert isinstance(rsconvert.load(saved, model, resolution=resolution), nn.Module)
    assert not trace.exists()
    assert rsconvert.load(saved, model).source.architecture == f"{code}:build"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"checkpoint_path": "trap.safetensors"},
        {"pretrained": True},
        {"pretrained_cfg": {"file": "trap.safetensors"}},
        {"pretrained_cfg_overlay": {"file": "trap.safetensors"}},
        {"weights": "DEFAULT"},
        {"no_such_argument": 1},
    ],
)
def test_hostile_arguments_are_refused(saved: Path, kwargs: dict[str, Any]) -> None:
    rewrite(saved, model_kwargs=kwargs)
    refused(lambda: rsconvert.load(saved), next(iter(kwargs)))


def test_an_unknown_name_is_refused(saved: Path) -> None:
    for name in ("no_such_model", "torchvision/no_such_model", "a/b", ""):
        rewrite(saved, architecture=name)
        refused(lambda: rsconvert.load(saved), "can't be rebuilt|unknown")


def set_to(name: str, tensor: torch.Tensor | None) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor

    return change


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("conv_stem.weight", None),
        ("bn1.at.48.running_var", None),
        ("foreign.weight", torch.ones(1)),
        ("bn1.at.40.weight", torch.ones(1)),
        ("bn1.at.48.bias", torch.ones(3)),
        ("classifier.bias", torch.ones(5, dtype=torch.int64)),
    ],
)
def test_tensors_that_do_not_fit_are_refused(saved: Path, name: str, tensor: torch.Tensor | None) -> None:
    rewrite(saved, set_to(name, tensor))
    refused(lambda: rsconvert.load(saved), f"does not fit SwitchableModel: 1 tensors.*{name}")


@pytest.mark.parametrize("tensor", [None, torch.ones(2), torch.ones(3, dtype=torch.int64)])
def test_scores_that_do_not_fit_are_refused(saved: Path, tensor: torch.Tensor | None) -> None:
    rewrite(saved, set_to("rsconvert.alpha", tensor))
    refused(lambda: rsconvert.load(saved), r"no rsconvert\.alpha with a number for each of \(64, 48, 32\)")


@pytest.mark.parametrize(("name", "tensor"), [("conv_stem.weight", None), ("bn1.at.48.bias", torch.ones(3))])
def test_a_damaged_set_is_refused_alone(saved: Path, name: str, tensor: torch.Tensor | None) -> None:
    rewrite(saved, set_to(name, tensor))
    refused(lambda: rsconvert.load(saved, resolution=48), "does not fit EfficientNet")


def test_an_alias_of_nothing_is_refused(saved: Path) -> None:
    rewrite(saved, set_to("conv_stem.weight", None), aliases={"conv_stem.weight": "nothing"})
    refused(lambda: rsconvert.load(saved), "conv_stem.weight")
    refused(lambda: rsconvert.load(saved, resolution=48), "conv_stem.weight")


def test_another_model_is_refused(saved: Path, tied: nn.Module) -> None:
    refused(lambda: rsconvert.load(saved, tied), "does not fit")
    refused(lambda: rsconvert.load(saved, tied, resolution=48), "does not fit Tied")


def test_extra_state_is_not_saved(tied_net: SwitchableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Linear, "get_extra_state", lambda self: {"a": 1}, raising=False)
    refused(lambda: rsconvert.save(tied_net, tmp_path / "x.safetensors"), "head._extra_state")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_network(
    net: SwitchableModel, saved: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    before = outputs(net)
    net.alpha.data.fill_(9)
    with full_disk():
        refused(lambda: rsconvert.save(net, saved), "make room")
    assert equal(outputs(rsconvert.load(saved)), before)
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old_network(
    net: SwitchableModel, saved: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    data = saved.read_bytes()

    def fail(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(data[: len(data) // 2])
        raise error

    monkeypatch.setattr(tensors_module, "save_file", fail)
    with pytest.raises(CheckpointError if isinstance(error, OSError) else KeyboardInterrupt):
        rsconvert.save(net, saved)
    assert saved.read_bytes() == data
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("kept", [(64, 32), (48, 32), (32,), (32, 64, 48)])
def test_a_subset_keeps_its_paths(net: SwitchableModel, tmp_path: Path, kept: tuple[int, ...]) -> None:
    net.source = replace(net.source, preprocessing=Preprocessing(crop_pct=(0.7, 0.8, 0.9)))
    small = subset(net, kept)
    assert small.resolutions == tuple(sorted(kept, reverse=True))
    for r in kept:
        x = torch.rand(2, 3, r, r)
        assert torch.equal(small.at(r)(x), net.at(r)(x))
    places = [net.resolutions.index(r) for r in small.resolutions]
    assert small.alpha.tolist() == net.alpha[places].tolist()
    assert small.source.preprocessing.crop_pct == tuple((0.7, 0.8, 0.9)[i] for i in places)
    assert not {t.data_ptr() for t in small.parameters()} & {t.data_ptr() for t in net.parameters()}
    rsconvert.save(small, tmp_path / "x.safetensors")
    assert equal(outputs(rsconvert.load(tmp_path / "x.safetensors")), outputs(small))


def test_a_subset_of_a_shared_network_stays_shared() -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet"), (64, 32), private=False)
    assert list(subset(net, (32,)).switchable_bns()) == []


def test_a_subset_keeps_the_costs_of_its_paths(net: SwitchableModel) -> None:
    row = {"resolution": 48, "form": "plain", "batch_size": 1, "amp": "off", "multiply_adds": 9, "latency_ms": 1.5}
    net.measured = Measured(costs={"A": [row, {**row, "resolution": 40}], "B": [{**row, "resolution": 40}]})
    assert subset(net, (64, 48)).measured.costs == {"A": [row]}
    assert subset(net, (64,)).measured.costs is None


def test_a_subset_of_what_is_not_there_is_refused(net: SwitchableModel) -> None:
    refused(lambda: subset(net, (64, 40)), r"resolution 40 has no set.*\(64, 48, 32\)")
    for malformed in ((), (64, 64)):
        with pytest.raises(ResolutionError):
            subset(net, malformed)


@pytest.fixture
def built_file(tmp_path: Path) -> Path:
    """A file of a network that a function in a user's own file built for each resolution."""
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, img_size):\n"
        "        super().__init__()\n"
        "        self.conv, self.bn = nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4)\n"
        "        self.pos_embed = nn.Parameter(torch.randn(1, (img_size // 8) ** 2, 4))\n\n"
        "    def forward(self, x):\n"
        "        return (self.bn(self.conv(x)).flatten(2).transpose(1, 2) + self.pos_embed).mean(1)\n\n\n"
        "def make(img_size=64):\n    print('ran')\n    return Net(img_size)\n"
    )
    net = rsconvert.make_switchable(rsconvert.create_model(f"{tmp_path}/mine.py:make"), (64, 32))
    rsconvert.save(net, tmp_path / "net.safetensors")
    return tmp_path


def test_a_file_builds_nothing_by_a_name_that_the_caller_did_not_give(built_file: Path, capsys) -> None:
    plain = rsconvert.create_model(f"{built_file}/mine.py:make")
    model = type(plain)(64)
    capsys.readouterr()
    with pytest.raises(CheckpointError, match=r"Pass build="):
        rsconvert.load(built_file / "net.safetensors", model)
    assert capsys.readouterr().out == ""


def test_a_moved_file_builds_by_the_name_that_the_caller_gives(built_file: Path) -> None:
    (built_file / "moved").mkdir()
    (built_file / "mine.py").rename(built_file / "moved" / "mine.py")
    net = rsconvert.load(
        built_file / "net.safetensors", rsconvert.create_model(f"{built_file}/moved/mine.py:make")
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(net(x), net.at(32)(x))
    assert net(torch.randn(2, 3, 48, 48)).shape == (2, 4)


def test_a_builder_without_need_is_told(tmp_path: Path) -> None:
    rsconvert.save(
        rsconvert.make_switchable(rsconvert.create_model("test_resnet"), (64, 32)), tmp_path / "net.safetensors"
    )
    with pytest.raises(CheckpointError, match="build has no effect"):
        rsconvert.load(tmp_path / "net.safetensors", build=lambda side: rsconvert.create_model("test_resnet"))


def test_private_tensors_that_a_batchnorm_owns_are_ignored(tmp_path: Path) -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_resnet"), (64, 32)).eval()
    rsconvert.save(net, tmp_path / "net.safetensors")
    rewrite(tmp_path / "net.safetensors", private_tensors=["bn1.weight", "nothing.at.all"])
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(rsconvert.load(tmp_path / "net.safetensors").eval()(x), net(x))


@pytest.fixture
def own_heads(draw_heads: Callable[[SwitchableModel], SwitchableModel]) -> SwitchableModel:
    """timm's test_efficientnet with a classifier of its own values for each resolution."""
    torch.manual_seed(0)
    model = rsconvert.create_model("test_efficientnet", num_classes=5)
    return draw_heads(rsconvert.make_switchable(model, (64, 48, 32), private=("bn", "head"))).eval()


def test_private_classifiers_come_back(own_heads: SwitchableModel, tmp_path: Path) -> None:
    rsconvert.save(own_heads, tmp_path / "x.safetensors")
    held = read_metadata(tmp_path / "x.safetensors")
    assert (held.fields["format_version"], held.private) == (1, True)
    assert held.private_tensors == ["classifier.weight", "classifier.bias"]
    assert {"classifier.weight", "classifier.at.48.bias"} <= load_file(tmp_path / "x.safetensors").keys()
    back = rsconvert.load(tmp_path / "x.safetensors")
    assert equal(outputs(back), outputs(own_heads))
    assert [name for name, _ in back.switchable_heads()] == ["classifier"]
    rsconvert.save(back, tmp_path / "again.safetensors")
    assert_same_file(tmp_path / "x.safetensors", tmp_path / "again.safetensors")


@pytest.mark.parametrize("resolution", [64, 48])
def test_one_resolution_reads_its_classifier_alone(own_heads: SwitchableModel, tmp_path: Path, resolution: int) -> None:
    rsconvert.save(own_heads, tmp_path / "x.safetensors")
    others = {64: "classifier.at.48.weight", 48: "classifier.weight"}
    # Of another shape, which would fail if it were read.
    rewrite(tmp_path / "x.safetensors", lambda tensors: tensors.update({others[resolution]: torch.zeros(1)}))
    path, x = rsconvert.load(tmp_path / "x.safetensors", resolution=resolution), torch.rand(2, 3, 48, 48)
    assert torch.equal(path(x), own_heads.at(resolution)(x))


def test_a_subset_keeps_its_classifiers(own_heads: SwitchableModel, tmp_path: Path) -> None:
    small = subset(own_heads, (48, 32))
    assert [one.weight.tolist() for one in dict(small.switchable_heads())["classifier"].sets] == [
        one.weight.tolist() for one in dict(own_heads.switchable_heads())["classifier"].sets[1:]
    ]
    rsconvert.save(small, tmp_path / "x.safetensors")
    for r in (48, 40, 32):
        x = torch.rand(2, 3, r, r)
        assert torch.equal(small(x), own_heads(x))
        assert torch.equal(rsconvert.load(tmp_path / "x.safetensors")(x), own_heads(x))


def test_classifiers_may_be_all_that_is_private(tmp_path: Path, draw_heads: Any) -> None:
    model = rsconvert.create_model("test_efficientnet", num_classes=5)
    net = draw_heads(rsconvert.make_switchable(model, (64, 32), private=("head",))).eval()
    rsconvert.save(net, tmp_path / "x.safetensors")
    at = [key for key in load_file(tmp_path / "x.safetensors") if ".at." in key]
    assert sorted(at) == ["classifier.at.32.bias", "classifier.at.32.weight"]
    back = rsconvert.load(tmp_path / "x.safetensors")
    assert equal(outputs(back), outputs(net))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(rsconvert.load(tmp_path / "x.safetensors", resolution=32)(x), net(x))
