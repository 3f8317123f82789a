"""Which build runs: compiled modules are used only if their sources are still the same."""

import ast
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prefork import compiled
from prefork.compiled import RECORD, SourceFinder, digest, is_current

ROOT = Path(__file__).parents[2]
EXTENSION = "http/limits.cpython-any.so"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of two sources, and the record of a build of them."""
    place = tmp_path / "package"
    (place / "http").mkdir(parents=True)
    for name in ("one.py", "http/two.py"):
        (place / name).write_text(f"# {name}\n")
    write_record(place, "one.py", "http/two.py")
    return place


def write_record(package: Path, *names: str) -> None:
    lines = [f"{name} {digest((package / name).read_bytes())}\n" for name in names]
    (package / RECORD).write_text("".join(lines))


def test_a_build_is_current_while_its_sources_are_the_same(package: Path) -> None:
    assert is_current(str(package))


@pytest.mark.parametrize("name", ["one.py", "http/two.py"])
def test_a_changed_source_makes_it_stale(package: Path, name: str) -> None:
    (package / name).write_text("# another\n")
    assert not is_current(str(package))


def test_a_source_that_is_gone_makes_it_stale(package: Path) -> None:
    (package / "one.py").unlink()
    assert not is_current(str(package))


@pytest.mark.parametrize("record", ["", "one.py\n", "one.py a b\n", "\n", "\xff"])
def test_a_record_that_says_nothing_is_that_of_no_build(package: Path, record: str) -> None:
    (package / RECORD).write_bytes(record.encode("latin-1"))
    assert not is_current(str(package))


@pytest.mark.skipif(compiled.COMPILED, reason="does not apply: this is no checkout")
def test_a_checkout_is_pure_python() -> None:
    assert not (ROOT / "prefork" / RECORD).exists()
    assert (compiled.COMPILED, compiled.BUILD) == (False, "pure Python")


def test_modules_are_found_by_their_source(package: Path) -> None:
    (package / "__init__.py").touch()
    (package / "http/__init__.py").touch()
    suffix = importlib.util.find_spec("_socket")
    assert suffix is not None
    finder = SourceFinder("package")
    for name, parent, file in (
        ("package.one", package, "one.py"),
        ("package.http", package, "http/__init__.py"),
        ("package.http.two", package / "http", "http/two.py"),
    ):
        (parent / f"{name.rpartition('.')[2]}.abi3.so").touch()
        spec = finder.find_spec(name, [str(parent)])
        assert spec is not None
        assert spec.origin == str(package / file)
    assert finder.find_spec("package", None) is None
    assert finder.find_spec("packages.one", [str(package)]) is None
    assert finder.find_spec("package.none", [str(package)]) is None


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of prefork with an extension module that cannot be loaded."""
    place = tmp_path / "site"
    shutil.copytree(
        ROOT / "prefork",
        place / "prefork",
        ignore=shutil.ignore_patterns("__pycache__", "*.so", RECORD),
    )
    (place / "prefork" / EXTENSION.replace("cpython-any", "abi3")).write_bytes(b"no ELF")
    return place


def build_of(site: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """What a process that imports the module says of its build."""
    code = "import prefork.compiled, prefork.http.limits; print(prefork.compiled.BUILD)"
    environ = {**os.environ, "PYTHONPATH": str(site), **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, cwd=site, capture_output=True, text=True)


def test_an_extension_without_a_record_is_ignored(installed: Path) -> None:
    done = build_of(installed)
    assert (done.stdout, done.stderr) == ("pure Python\n", "")


def test_an_extension_of_another_source_is_ignored(installed: Path) -> None:
    package = installed / "prefork"
    write_record(package, "http/limits.py")
    with (package / "http/limits.py").open("a") as source:
        source.write("# changed\n")
    done = build_of(installed)
    assert (done.stdout, done.stderr) == ("pure Python\n", "")


def test_an_extension_of_this_source_is_loaded_unless_pure_python_is_wanted(
    installed: Path,
) -> None:
    write_record(installed / "prefork", "http/limits.py")
    assert "limits.abi3.so" in build_of(installed).stderr  # it was tried
    done = build_of(installed, PREFORK_PURE="1")
    assert (done.stdout, done.stderr) == ("pure Python\n", "")


@pytest.fixture(scope="module")
def setup_script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "setup.py"))


def test_no_call_is_in_a_slice_of_compiled_code(setup_script: dict[str, Any]) -> None:
    """mypyc evaluates some bounds of slices twice."""
    for name in setup_script["MODULES"]:
        tree = ast.parse((ROOT / "prefork" / name).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Slice):
                inside = any(isinstance(each, ast.Call) for each in ast.walk(node))
                assert not inside, f"{name}:{node.lineno}: {ast.unparse(node)}"


BLOCKING = {"poll", "select", "_accept", "sleep", "acquire"}


def test_nothing_that_blocks_is_called_by_compiled_code(setup_script: dict[str, Any]) -> None:
    """It would not look for signals before."""
    for name in setup_script["MODULES"]:
        tree = ast.parse((ROOT / "prefork" / name).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                called = ast.unparse(node.func).rpartition(".")[2]
                at_once = bool(node.args) and ast.unparse(node.args[0]) == "0"
                assert called not in BLOCKING or at_once, f"{name}:{node.lineno}"


def structs(source: str) -> list[ast.ClassDef]:
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and "Struct" in map(ast.unparse, node.bases)
    ]


def test_each_struct_becomes_a_class_of_the_same_fields(setup_script: dict[str, Any]) -> None:
    """Each line stays where it is: tracebacks have the numbers of the source."""
    changed = 0
    for name in setup_script["MODULES"]:
        source = (ROOT / "prefork" / name).read_text()
        native = setup_script["with_native_classes"](source)
        assert len(native.split("\n")) == len(source.split("\n"))
        assert not structs(native)
        classes = {
            node.name: node for node in ast.walk(ast.parse(native)) if type(node) is ast.ClassDef
        }
        for struct in structs(source):
            changed += 1
            fields = [ast.unparse(each) for each in struct.body if isinstance(each, ast.AnnAssign)]
            (init,) = (
                node
                for node in classes[struct.name].body
                if isinstance(node, ast.FunctionDef) and node.name == "__init__"
            )
            assert len(init.body) == len(fields) == len(init.args.args) - 1
    assert changed


def test_a_class_in_place_of_a_struct_is_made_the_same_way(setup_script: dict[str, Any]) -> None:
    source = 'class Point(Struct, frozen=True):\n    x: int\n    y: int = 2\n    """Doc."""\n'
    module: dict[str, Any] = {}
    exec(setup_script["with_native_classes"](source), module)
    for made in (module["Point"](1), module["Point"](x=1, y=2)):
        assert (made.x, made.y) == (1, 2)
    with pytest.raises(TypeError):
        module["Point"]()
