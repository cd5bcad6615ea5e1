"""What ``import asmkit`` promises: light, complete, documented, clear about what is missing."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import asmkit
from asmkit.errors import MissingExtraError

PACKAGE = Path(asmkit.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text("utf-8")) for path in FILES}


def for_type_checkers(module: str) -> list[ast.ImportFrom]:
    """The imports under ``if TYPE_CHECKING``."""
    return [
        statement
        for node in MODULES[module].body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
    ]


def modules_loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in result.stdout.split()}


def test_importing_asmkit_loads_nothing_but_asmkit() -> None:
    third_party = {"click", "cv2", "matplotlib", "numba", "numpy", "onnxruntime", "scipy"}
    third_party |= {"sklearn", "torch", "tqdm"}
    assert not modules_loaded_by("import asmkit") & third_party


@pytest.mark.parametrize("name", ["ShapeModel", "read", "solve_pnp", "load", "evaluate"])
def test_names_outside_of_nn_load_no_torch(name: str) -> None:
    assert not modules_loaded_by(f"import asmkit; asmkit.{name}") & {"torch", "matplotlib"}


def test_every_public_name_resolves() -> None:
    for name in asmkit.__all__:
        assert getattr(asmkit, name) is not None
    assert dir(asmkit) == sorted(asmkit.__all__)


def test_the_lists_of_public_names_agree() -> None:
    seen_by_type_checkers = {
        alias.name: (statement.module or "").removeprefix("asmkit").lstrip(".")
        for statement in for_type_checkers("asmkit")
        for alias in statement.names
    }
    submodules = {name for name, module in seen_by_type_checkers.items() if not module}
    assert submodules == set(asmkit._SUBMODULES)
    assert {n: m for n, m in seen_by_type_checkers.items() if m} == asmkit._MODULE_OF
    assert {*asmkit._MODULE_OF, *submodules, "__version__"} == set(asmkit.__all__)
    assert len(set(asmkit.__all__)) == len(asmkit.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'asmkit' has no attribute 'ShapeModle'"):
        _ = asmkit.ShapeModle


# -- missing extras


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Make packages impossible to import, and let asmkit's own modules be imported anew."""

    def block(*packages: str) -> None:
        for name in list(sys.modules):
            if name.startswith("asmkit.nn"):
                monkeypatch.delitem(sys.modules, name)
        for package in packages:
            monkeypatch.setitem(sys.modules, package, None)

    return block  # type: ignore[return-value]  # a fixture gives what it returns


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_nn_without_torch_names_the_command(without, package: str) -> None:  # type: ignore[no-untyped-def]
    without(package)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*pip install 'asmkit\[nn\]'"):
        importlib.import_module("asmkit.nn")


def test_plots_without_matplotlib_name_the_command(without) -> None:  # type: ignore[no-untyped-def]
    without("matplotlib")
    with pytest.raises(MissingExtraError, match=r"pip install 'asmkit\[plot\]'"):
        asmkit.plotting.plot_ced({"a": [0.1]})
    drawn = asmkit.plotting.contact_sheet(
        [asmkit.datasets.synthetic_faces(1, 0, size=32).images[0]]
    )
    assert drawn.shape == (32, 32, 3)  # drawing on images needs no matplotlib


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A folder that looks like a trained network up to its description."""
    description = {"format": 1, "arch": "asmnet", "width": 1.0, "n_points": 68, "scheme": "ibug68"}
    (tmp_path / "model.json").write_text(
        json.dumps({**description, "input_size": 112, "margin": 1.25})
    )
    return tmp_path


def test_load_without_an_engine_names_both_commands(without, described: Path) -> None:  # type: ignore[no-untyped-def]
    without("torch", "onnxruntime")
    with pytest.raises(MissingExtraError, match=r"'asmkit\[infer\]'.*'asmkit\[nn\]'"):
        asmkit.load(described)
    with pytest.raises(MissingExtraError, match=r"'asmkit\[infer\]'"):
        asmkit.load(described, engine="onnxruntime")
    with pytest.raises(MissingExtraError, match=r"'asmkit\[nn\]'"):
        asmkit.load(described, engine="torch")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_export_without_onnx_names_the_command(without, package: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from asmkit.nn.export import export_onnx
    from asmkit.nn.networks import build_network

    network = build_network("asmnet", 5, width=0.35)
    without(package)
    with pytest.raises(MissingExtraError, match=r"pip install 'asmkit\[nn\]'"):
        export_onnx(network, 32, tmp_path / "x.onnx", {})
    assert not list(tmp_path.iterdir())


# -- documentation and structure


def documented(thing: object) -> bool:
    return bool((inspect.getdoc(thing) or "").strip())


def test_every_public_thing_is_documented() -> None:
    undocumented = []
    for info in pkgutil.walk_packages([str(PACKAGE)], "asmkit."):
        if info.name == "asmkit.__main__":
            continue
        module = importlib.import_module(info.name)
        things = {name: getattr(module, name) for name in getattr(module, "__all__", [])}
        undocumented += [info.name] if not documented(module) else []
        for name, thing in things.items():
            if inspect.isclass(thing):
                members = {k: v for k, v in vars(thing).items() if not k.startswith("_")}
                routines = {k: v for k, v in members.items() if _is_code(v)}
                undocumented += [f"{name}.{k}" for k, v in routines.items() if not documented(v)]
            if inspect.isclass(thing) or inspect.isfunction(thing):
                undocumented += [f"{info.name}.{name}"] if not documented(thing) else []
    assert not undocumented


def _is_code(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)


def test_a_leaf_lists_what_it_offers() -> None:
    """Every name of ``__all__`` exists, in every module."""
    for name in MODULES:
        if name != "asmkit.__main__":
            module = importlib.import_module(name)
            for public in getattr(module, "__all__", []):
                assert hasattr(module, public), f"{name}.{public}"


def imports(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                # `from package import module` needs the module, not what the package offers.
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in MODULES else node.module)
    return names


def test_modules_import_one_way() -> None:
    graph = {}
    for name, tree in MODULES.items():
        later = set().union(*map(imports, for_type_checkers(name)))
        own = imports(tree) - later
        graph[name] = {other for other in own & set(MODULES) if other not in ("asmkit", name)}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises on a cycle


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("torch", ("asmkit.nn",)),
        ("numba", ("asmkit._kernels",)),
        ("sklearn", ("asmkit.model", "asmkit.nn", "asmkit.quality")),
        ("click", ("asmkit.cli",)),
        ("matplotlib", ("asmkit.plotting",)),
        ("dask", ("asmkit.distributed",)),
        ("zarr", ("asmkit.shape_store",)),
        ("pyarrow", ("asmkit.shape_store",)),
    ],
)
def test_a_heavy_package_lives_in_one_place(package: str, homes: tuple[str, ...]) -> None:
    for name, tree in MODULES.items():
        if any(imported.partition(".")[0] == package for imported in imports(tree)):
            assert name.startswith(homes), f"{name} imports {package}"


def test_there_is_one_version_number() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "asmkit.__version__"
    texts = [path.read_text("utf-8") for path in FILES]
    assert sum(f'"{asmkit.__version__}"' in text for text in texts) == 1
