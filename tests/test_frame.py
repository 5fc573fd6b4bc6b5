"""The files around the package: .ci/run does what the README says, and no file tells where it was written."""

import configparser
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CI = ROOT / ".ci" / "run"
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/python -m pytest"

SKIPPED = {".git", ".venv", "__pycache__", "build", "dist", "rsconvert-demo"}
TEXTS = {".py", ".md", ".toml", ".cfg", ".json", ".txt", ".yml", ".yaml", ""}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|work|workspace|mnt|tmp|scratch)/\w|(?<!\w)[A-Z]:\\\\?Users")
ADDRESS = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")
HOST = re.compile(r"https?://([\w.-]+)")
KNOWN_HOSTS = {
    "arxiv.org",
    "docs.wandb.ai",
    "doi.org",
    "download.pytorch.org",
    "example.com",
    "github.com",
    "huggingface.co",
    "keepachangelog.com",
    "mlflow.org",
    "pytorch.org",
    "semver.org",
    "www.apache.org",
}


def project_files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.endswith(("_cache", ".egg-info"))]
        yield from (Path(folder, name) for name in names if Path(name).suffix in TEXTS and not name.startswith(".git"))


def traces(text: str) -> list[str]:
    """Absolute paths of a machine, addresses and hosts outside the known ones."""
    hosts = [host for host in HOST.findall(text) if host.rstrip(".") not in KNOWN_HOSTS]
    return MACHINE_PATH.findall(text) + ADDRESS.findall(text) + hosts


def test_no_file_names_a_machine() -> None:
    found = {
        str(file.relative_to(ROOT)): traces(file.read_text(encoding="utf-8", errors="replace"))
        for file in project_files()
    }
    assert {name: hits for name, hits in found.items() if hits} == {}
    assert {"LICENSE", "pyproject.toml", "tests/test_frame.py"} <= set(found)


@pytest.mark.parametrize("parts", [("", "home", "me"), ("see ", "tmp", "x"), ("'", "Users", "me'")])
def test_a_machine_path_is_found(parts: tuple[str, ...]) -> None:
    assert traces("/".join(parts))


@pytest.mark.parametrize("text", ["http" + "://mirror.local/simple", "at 10" + ".0.0.1"])
def test_a_host_is_found(text: str) -> None:
    assert traces(text)


@pytest.mark.parametrize("text", ["my/home/page", "docs/tmp/x", "https://arxiv.org/abs/2007.09558", "0.1.0 and 2.15"])
def test_an_innocent_text_passes(text: str) -> None:
    assert traces(text) == []


def test_the_readme_and_the_ci_share_the_test_command() -> None:
    assert CI.read_text(encoding="utf-8").splitlines()[-1] == TEST_COMMAND
    assert TEST_COMMAND in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def stub_python(folder: Path, status: int) -> None:
    """A python3 whose virtual environments hold a silent pip and a pytest that ends with ``status``."""
    folder.mkdir()
    script = f"""#!/bin/sh
mkdir -p .venv/bin
printf '#!/bin/sh\\nexit 0\\n' > .venv/bin/pip
printf '#!/bin/sh\\npwd\\nls -A\\necho {status} tests\\nexit {status}\\n' > .venv/bin/python
chmod +x .venv/bin/*
"""
    (folder / "python3").write_text(script)
    (folder / "python3").chmod(0o755)


@pytest.mark.parametrize("status", [0, 1])
def test_the_ci_tests_a_copy_and_tells_how_it_went(tmp_path: Path, status: int) -> None:
    stub_python(tmp_path / "bin", status)
    (tmp_path / "copies").mkdir()
    environment = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(tmp_path / "copies")}
    done = subprocess.run([CI], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    folder, *seen, last = done.stdout.splitlines()
    assert (done.returncode, last, done.stderr) == (status, f"{status} tests", "")
    assert Path(folder).parent == tmp_path / "copies"
    assert {"pyproject.toml", "rsconvert", "tests", ".ci"} <= set(seen)
    assert ".git" not in seen
    assert list((tmp_path / "copies").iterdir()) == []


def test_the_image_holds_what_the_package_needs() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"]
    assert sorted(copied) == sorted(let_in)
    assert all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "setup.cfg", "README.md", "LICENSE", "rsconvert"} == set(copied)
    assert lines[-4:] == ["USER 1000", "WORKDIR /data", 'ENTRYPOINT ["rsconvert"]', 'CMD ["--help"]']


def test_the_package_says_that_it_is_typed() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    data = settings["options.package_data"]
    assert data["rsconvert"] == "py.typed"
    for package, pattern in data.items():
        folder = ROOT.joinpath(*package.split("."))
        assert list(folder.glob(pattern)), package
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "Typing :: Typed" in project["classifiers"]
    assert project["dynamic"] == ["version"]
    assert settings["metadata"]["version"] == "attr: rsconvert.__version__"
