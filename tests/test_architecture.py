"""The rules of CONTRIBUTING.md that a program can check: who imports whom, what importing costs, what settings declare."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluenet.fingerprint import leaves
from cluenet.plugins import load_components
from cluenet.recipe import Recipe
from cluenet.registry import ComponentConfig, register
from cluenet.steps import STEPS

ROOT = Path(__file__).parent.parent
SOURCE_ROOTS = (ROOT / "platform", ROOT / "components")
FILES = [path for root in SOURCE_ROOTS for path in sorted(root.rglob("*.py"))]

# What a module of `cluenet` may import of `cluenet`, by layer; a package stands for everything in it.
MODULES = {
    0: "errors records steps interrupts verdicts disk",
    1: "registry contracts config objects storage folders progress shared_slots pipeline_table plain",
    2: "plugins problems recipe fingerprint listing reference",
    3: "model metrics decoding isolation processes prepared features overlap planning run_account estimate ask exporting testing",
    4: "ray_data",
    5: "data train evaluate report serve cluster pretrain",
    6: "run diagnose summary inspection grid clusterfiles validation jobs verbs cli __main__",
}
LAYERS = {module: layer for layer, modules in MODULES.items() for module in modules.split()}
RAY_FROM_LAYER = 4
STEPS_LAYER = 5
WITHOUT_TORCH_OR_RAY_BELOW = 3
SEPARATE = {name for name, layer in LAYERS.items() if layer == STEPS_LAYER}
"""Layer 5: these hand over through folders, and through modules of lower layers."""
OPEN = "contracts registry records verdicts errors steps model testing storage folders decoding progress"
PUBLIC = set(OPEN.split())
"""What components may import."""


def module_of(path: Path) -> str:
    root = next(root for root in SOURCE_ROOTS if path.is_relative_to(root))
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, at_import_time: bool = False) -> Iterator[tuple[str, int]]:
    """(module, line) of everything imported; `from a import b` gives a.b. Never what only type checkers see."""
    tree = ast.parse(path.read_text(), str(path))
    for node in _nodes(tree, into_functions=not at_import_time):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _nodes(node: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not into_functions:
            continue
        yield child
        yield from _nodes(child, into_functions=into_functions)


def part_of(module: str) -> str | None:
    """`cluenet.model.batch` -> `model`; None for what is not of the platform."""
    words = module.split(".")
    return words[1] if words[0] == "cluenet" and len(words) > 1 else None


def platform_files() -> Iterator[tuple[Path, str]]:
    for path in FILES:
        if (part := part_of(module_of(path))) is not None:
            yield path, part


def shown(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_the_scan_sees_the_sources():
    """Guards the other tests: a scan that finds nothing cannot fail."""
    assert len(FILES) > 60
    assert any(name.startswith("torch.") or name == "torch" for path in FILES for name, _ in imports(path))
    assert "ray" in {name.split(".")[0] for path in FILES for name, _ in imports(path)}


def test_every_module_has_a_layer():
    unknown = {part for _, part in platform_files()} - set(LAYERS)
    assert not unknown, f"give {sorted(unknown)} a layer in {Path(__file__).name}"


def test_nothing_imports_from_a_higher_layer():
    wrong = [
        f"{shown(path, line)} ({part}, layer {LAYERS[part]}) imports {name} (layer {LAYERS[other]})"
        for path, part in platform_files()
        for name, line in imports(path)
        if (other := part_of(name)) in LAYERS and part in LAYERS and LAYERS[other] > LAYERS[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_ray_is_imported_from_layer_four_on_only():
    wrong = [
        f"{shown(path, line)} imports {name}"
        for path in FILES
        for name, line in imports(path)
        if name.split(".")[0] == "ray" and LAYERS.get(part_of(module_of(path)) or "", 0) < RAY_FROM_LAYER
    ]
    assert not wrong, "\n".join(wrong)


def test_low_layers_do_not_import_torch():
    wrong = [
        f"{shown(path, line)} imports {name}"
        for path, part in platform_files()
        if LAYERS.get(part, 0) < WITHOUT_TORCH_OR_RAY_BELOW
        for name, line in imports(path)
        if name.split(".")[0] in ("torch", "transformers")
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_of_the_steps_do_not_import_each_other():
    wrong = [
        f"{shown(path, line)} imports {name}"
        for path, part in platform_files()
        if part in SEPARATE
        for name, line in imports(path)
        if (other := part_of(name)) in SEPARATE and other != part
    ]
    assert not wrong, "\n".join(wrong)


def test_the_model_and_the_metrics_know_no_recipe():
    """They get their own section, so they can be used, and measured, without the platform around them."""
    wrong = [
        f"{shown(path, line)} imports {name}"
        for path, part in platform_files()
        if part in ("model", "metrics")
        for name, line in imports(path)
        if part_of(name) in ("recipe", "fingerprint", "prepared", "planning")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_platform_names_no_component():
    wrong = [
        f"{shown(path, line)} imports {name}"
        for path, _ in platform_files()
        for name, line in imports(path)
        if name.split(".")[0] == "cluenet_components"
    ]
    assert not wrong, "\n".join(wrong)


def test_components_use_the_public_surface_and_not_other_kinds():
    wrong = []
    for path in FILES:
        module = module_of(path).split(".")
        if module[0] != "cluenet_components":
            continue
        kind = module[1] if len(module) > 1 else ""
        for name, line in imports(path):
            words = name.split(".")
            private = words[0] == "cluenet" and (part_of(name) or "") not in PUBLIC
            other_kind = words[0] == "cluenet_components" and words[1] != kind and not words[1].startswith("_")
            if private or other_kind:
                wrong.append(f"{shown(path, line)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_ends_the_process():
    wrong = [
        shown(path, node.lineno)
        for path in FILES
        if path.name != "cli.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "exit", "quit", "os._exit")
    ]
    assert not wrong, "\n".join(wrong)


def test_source_roots_are_no_packages():
    """An `__init__.py` in platform/ would hide the standard library's `platform`, and even `import ray` would fail."""
    for root in SOURCE_ROOTS:
        assert not (root / "__init__.py").exists()


def test_no_name_of_the_standard_library():
    """It would hide the library's module from a script beside it. Two stand for what recipes and fields call them."""
    called_so = {"cluenet_components.clue_filters.random", "cluenet.metrics.statistics"}
    wrong = [
        str(path.relative_to(ROOT))
        for path in FILES
        if path.stem in sys.stdlib_module_names and module_of(path) not in called_so
    ]
    assert not wrong, "\n".join(wrong)
    top_level = {path.stem for root in SOURCE_ROOTS for path in root.iterdir()}
    assert not top_level & set(sys.stdlib_module_names)


def test_every_package_of_components_is_explicit():
    """`pkgutil.walk_packages` does not look into a folder without `__init__.py`: its components would not be found."""
    folders = {path.parent for path in FILES} - set(SOURCE_ROOTS)
    missing = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import cluenet", ("torch", "ray", "transformers", "pyarrow", "pydantic")),
        ("import cluenet.contracts, cluenet.recipe, cluenet.fingerprint", ("torch", "ray", "transformers")),
        ("import cluenet.cli", ("torch", "ray", "transformers", "pydantic", "numpy")),
        ("import cluenet.model.pipeline, cluenet.model.checkpoint", ("ray",)),
        ("from cluenet.plugins import load_components; load_components()", ("ray",)),
        ("import cluenet.planning, cluenet.run", ("ray", "torch")),
    ],
)
def test_importing_is_cheap(code: str, absent: tuple[str, ...]):
    check = f"{code}\nimport sys\nprint(*[name for name in {absent!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


# --------------------------------------------------------------------------------------- settings declare their step

load_components()
COMPONENTS = [registry[name] for registry in register.kinds().values() for name in registry]


def test_every_setting_of_a_recipe_declares_the_step_it_affects():
    undeclared = [leaf.path for leaf in leaves(Recipe.from_dict({})) if leaf.step not in STEPS]
    assert not undeclared, f"declare their step with `cluenet.steps.setting`: {undeclared}"


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda cls: f"{cls.kind}-{cls.name}")
def test_every_setting_of_a_component_declares_the_step_it_affects(component):
    """Also those that are not named there: they inherit the step of their kind."""
    config: ComponentConfig = component.Config.model_construct(
        **{name: None for name, field in component.Config.model_fields.items() if field.is_required()}
    )
    step = register.kinds()[component.kind].step
    found = {leaf.path: leaf.step for leaf in leaves(config, step=step)}
    assert len(found) >= len(component.Config.model_fields)
    assert set(found.values()) <= set(STEPS)
