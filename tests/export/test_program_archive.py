"""Programs that would run code as they are opened: by what they unpickle, evaluate, import, or call an operator."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rsconvert
from rsconvert.errors import CheckpointError
from rsconvert.export import open_export
from rsconvert.export.program_archive import checked_program, is_compiled
from rsconvert.surgery import SwitchableModel

WEIGHTS, MODEL = "archive/data/weights/model_weights_config.json", "archive/models/model.json"
Records = dict[str, bytes]


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (str(self.file), "w")


@pytest.fixture(scope="module")
def net() -> SwitchableModel:
    return rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), (48, 32)).eval()


@pytest.fixture(scope="module")
def records() -> Records:
    """The records of a program of one linear layer, for any batch."""
    package = io.BytesIO()
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    program = torch.export.export(model, (torch.zeros(2, 3, 2, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, package)
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(records: Records, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def edited(records: Records, name: str, edit: Callable[[Any], object]) -> Records:
    held = json.loads(records[name])
    edit(held)
    return {**records, name: json.dumps(held).encode()}


def first_node(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model["graph_module"]["graph"]["nodes"][0]
    return found


def test_a_sound_program_computes_what_it_did(tmp_path: Path, records: Records, net: SwitchableModel) -> None:
    path = written(records, tmp_path / "net.pt2")
    x = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(open_export(path, net).run(x), torch.export.load(path).module()(x))


def test_what_is_handed_on_holds_no_inputs_guards_and_traces(tmp_path: Path, records: Records) -> None:
    with zipfile.ZipFile(checked_program(written(records, tmp_path / "net.pt2"))) as archive:
        model = json.loads(archive.read(MODEL))
        assert archive.read("archive/data/sample_inputs/model.pt") == b""
    assert model["guards_code"] == []
    assert first_node(model)["metadata"] == {}


def test_a_pickle_among_the_sample_inputs_is_not_read(tmp_path: Path, records: Records, net: SwitchableModel) -> None:
    trap = tmp_path / "trap"
    bomb = {"archive/data/sample_inputs/model.pt": pickle.dumps(Bomb(trap))}
    assert open_export(written({**records, **bomb}, tmp_path / "net.pt2"), net).run(torch.zeros(1, 3, 2, 2)).shape == (
        1,
        5,
    )
    assert not trap.exists()


def pickled_weight(records: Records, trap: Path) -> Records:
    def edit(table: Any) -> None:
        next(iter(table["config"].values()))["use_pickle"] = True

    buffer = io.BytesIO()
    torch.save(Bomb(trap), buffer)
    return {**edited(records, WEIGHTS, edit), "archive/data/weights/weight_0": buffer.getvalue()}


def pickled_constant(records: Records, trap: Path) -> Records:
    table = {"config": {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}}
    name = "archive/data/constants/model_constants_config.json"
    bomb = {"archive/data/constants/opaque_obj_0": pickle.dumps(Bomb(trap))}
    return {**records, name: json.dumps(table).encode(), **bomb}


def legacy_weights(records: Records, trap: Path) -> Records:
    return {**records, "archive/data/weights/model.pt": pickle.dumps(Bomb(trap))}


def size(expression: str) -> Callable[[Records, Path], Records]:
    def change(records: Records, trap: Path) -> Records:
        text = records[MODEL].decode()
        start = text.index("Symbol(")
        code = expression.replace("TRAP", repr(str(trap)))
        return {**records, MODEL: (text[:start] + code + text[text.index('"', start) :]).encode()}

    return change


def operator_of(target: str, *arguments: str) -> Callable[[Records, Path], Records]:
    def change(records: Records, trap: Path) -> Records:
        texts = [text or str(trap) for text in arguments]

        def edit(model: Any) -> None:
            inputs = [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in texts]
            first_node(model).update(target=target, inputs=inputs)

        return edited(records, MODEL, edit)

    return change


def tree_that_imports(records: Records, trap: Path) -> Records:
    factory = {"default_factory_module": "antigravity", "default_factory_name": "fly", "dict_context": []}
    spec = [1, {"type": "collections.defaultdict", "context": json.dumps(factory), "children_spec": []}]

    def edit(model: Any) -> None:
        model["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(spec)

    return edited(records, MODEL, edit)


def name_that_is_code(records: Records, trap: Path) -> Records:
    def edit(model: Any) -> None:
        call = model["graph_module"]["module_call_graph"][0]["signature"]
        call["forward_arg_names"] = [f"x=open({str(trap)!r}, 'w')"]

    return edited(records, MODEL, edit)


def vast_weight(records: Records, trap: Path) -> Records:
    def edit(table: Any) -> None:
        entry = next(iter(table["config"].values()))
        entry["tensor_meta"]["sizes"] = [{"as_int": 2**40}]

    return {**edited(records, WEIGHTS, edit), "archive/data/weights/weight_0": b""}


ATTACKS = (
    pickled_weight,
    pickled_constant,
    legacy_weights,
    size("__import__('pathlib').Path(TRAP).touch() or 2"),
    size("9 ** 9 ** 9"),
    size("Pow(Pow(Integer(9), Integer(8)), Integer(8))"),
    size("s0.__class__"),
    operator_of("torch.os.system", "touch trap"),
    operator_of("torch.load", ""),
    operator_of("torch.ops.load_library", ""),
    operator_of("torch.ops.aten.from_file.default", ""),
    operator_of("torch.ops.aten.save.default", "text", ""),
    operator_of("torch.ops.aten.__class__.mro"),
    operator_of("_operator.methodcaller", "x"),
    operator_of("torch.ops.higher_order.cond"),
    tree_that_imports,
    name_that_is_code,
    vast_weight,
    lambda records, trap: {**records, "archive/data/aotinductor/../x.so": b""},
    lambda records, trap: {**records, MODEL: b"[" * 100_000},
    lambda records, trap: {name: content for name, content in records.items() if name != WEIGHTS},
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_program_that_would_run_code_is_refused(
    tmp_path: Path, records: Records, net: SwitchableModel, attack: Callable[[Records, Path], Records]
) -> None:
    trap = tmp_path / "trap"
    path = written(attack(records, trap), tmp_path / "net.pt2")
    if not is_compiled(path):
        with pytest.raises((ValueError, KeyError, RecursionError)):  # before torch sees anything of it
            checked_program(path)
    with pytest.raises(CheckpointError, match=r"net\.pt2") as caught:
        open_export(path, net)
    assert "\n" not in str(caught.value)
    assert not trap.exists()


def test_compressed_records_are_refused(tmp_path: Path, records: Records, net: SwitchableModel) -> None:
    with pytest.raises(CheckpointError, match=r"compressed|larger"):
        open_export(written(records, tmp_path / "net.pt2", zipfile.ZIP_DEFLATED), net)


def test_a_compiled_package_needs_a_word_of_the_caller(tmp_path: Path, net: SwitchableModel) -> None:
    path = written({"archive/data/aotinductor/model/x.so": b"no library"}, tmp_path / "net.pt2")
    with pytest.raises(CheckpointError, match=r"with your rights.*--native-code"):
        open_export(path, net)
    with pytest.raises(CheckpointError, match="can't be opened as a file of AOTInductor"):
        open_export(path, net, native_code=True)
