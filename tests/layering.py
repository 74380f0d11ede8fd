"""Reads imports and sizes off the source with `ast`, and the page that describes the tree.

Works on any tree, so that the test can be tried on one with planted faults.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

LAYERS = ("models", "diffusion", "oracle", "utils")
# between the layers and the tasks: where the layers meet for several tasks
SHARED = {"ddpm": frozenset({"models", "diffusion", "utils"})}
# what a layer may import besides itself and the standard library; None: any third-party package
ALLOWED: dict[str, frozenset[str] | None] = {
    "models": frozenset({"torch"}),
    "diffusion": frozenset({"torch", "numpy"}),
    "oracle": frozenset({"torch"}),
    "utils": None,
}
# above the tasks: whose networks it handles; only scripts import it
ABOVE = frozenset({"weights"})
NOT_PACKAGES = frozenset({"tests", "benchmarks", "docs", "slurms"})
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_SCRIPT_LINES = 500, 50, 80


def packages(root: Path) -> list[str]:
    """Layers and task packages: the folders with an ``__init__.py``."""
    found = (path.parent.name for path in root.glob("*/__init__.py"))
    return sorted(set(found) - NOT_PACKAGES)


def imported_packages(path: Path) -> set[str]:
    """First components of everything a file imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            is_relative = node.level > 0
            found.add(path.parent.name if is_relative else (node.module or "").partition(".")[0])
    return found


def layer_faults(root: Path) -> list[str]:
    """``file imports package`` for every import that the layering forbids."""
    own = packages(root)
    tasks = frozenset(own) - set(LAYERS) - set(SHARED)
    scripts = {path.stem for path in root.glob("*.py")}
    faults = []
    for package in own:
        for path in sorted((root / package).rglob("*.py")):
            names = imported_packages(path) - set(sys.stdlib_module_names) - {package}
            others = frozenset(scripts) if package in ABOVE else tasks | scripts
            bad = _forbidden(package, names, others)
            faults += [f"{path.relative_to(root)} imports {name}" for name in sorted(bad)]
    return faults + _script_faults(root, tasks)


def _forbidden(package: str, names: set[str], tasks_and_scripts: frozenset[str]) -> set[str]:
    if package in SHARED:
        above = tasks_and_scripts | set(SHARED) | set(LAYERS) | {"tests", "benchmarks"}
        return (names & above) - SHARED[package]
    if package not in LAYERS:
        return names & (tasks_and_scripts | {"tests", "benchmarks"})
    allowed = ALLOWED[package]
    if allowed is not None:
        return names - allowed
    return names & (tasks_and_scripts | set(SHARED) | set(LAYERS) | {"tests", "benchmarks"})


def _script_faults(root: Path, tasks: frozenset[str]) -> list[str]:
    faults = []
    for path in sorted(root.glob("*.py")):
        names = imported_packages(path)
        bad = names & ({"models", "diffusion", "tests", "benchmarks"})
        faults += [f"{path.name} imports {name}" for name in sorted(bad)]
        if len(names & tasks) > 1:
            faults.append(f"{path.name} imports {' and '.join(sorted(names & tasks))}")
    return faults


def sources(root: Path) -> Iterator[Path]:
    """Every Python file of the project, tests included."""
    yield from sorted(root.glob("*.py"))
    for folder in [*packages(root), *sorted(NOT_PACKAGES)]:
        yield from sorted((root / folder).rglob("*.py"))


def modules(root: Path) -> dict[str, Path]:
    """Dotted name → file of every module of the packages; without `__init__`."""
    files = (path for package in packages(root) for path in (root / package).rglob("*.py"))
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in sorted(files)
        if path.stem != "__init__"
    }


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module → modules of the packages that it imports, also for type checks and in functions."""
    found = modules(root)
    graph: dict[str, set[str]] = {name: set() for name in found}
    for name, path in found.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & set(found)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= (names | {node.module}) & set(found)
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of names each of which reaches the others; sorted, empty if all goes one way."""
    reach = {name: set(targets) for name, targets in graph.items()}
    for middle in reach:
        for name in reach:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    found = {
        tuple(sorted(other for other in reach[name] if name in reach.get(other, ())))
        for name in reach
    }
    return sorted(list(circle) for circle in found if circle)


def circle_faults(root: Path) -> list[list[str]]:
    """Circles between modules, and those between rooms: folders within a package.

    A module that stands directly in a package is a node of its own among the rooms.
    """
    graph = import_graph(root)
    rooms: dict[str, set[str]] = {}
    for name, targets in graph.items():
        own = _room(name)
        rooms.setdefault(own, set()).update({_room(target) for target in targets} - {own})
    found = circles(graph)
    return found + [circle for circle in circles(rooms) if circle not in found]


def _room(module: str) -> str:
    return module.rpartition(".")[0] if module.count(".") > 1 else module


def page_faults(root: Path) -> list[str]:
    """Modules that the tree in docs/architecture.md does not name, and names without a module.

    A line without indent that begins with a package's folder opens it; an indented line below
    names its modules, up to three spaces or more.
    """
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    folder, named = "", []
    for line in text.split("```")[1].splitlines():
        start = line.split(" ")[0].rstrip("/")
        if line and not line.startswith(" "):
            folder = start.replace("/", ".") if start.split("/")[0] in packages(root) else ""
        elif line and folder:
            named += [f"{folder}.{name}" for name in re.split(r" {3,}", line.strip())[0].split()]
    have = modules(root)
    faults = [f"{name} is not on the page" for name in have if name not in named]
    faults += [f"{name} is on the page and is no module" for name in named if name not in have]
    twice = {name for name in named if named.count(name) > 1}
    return faults + [f"{name} is on the page more than once" for name in sorted(twice)]


def size_faults(root: Path) -> list[str]:
    """Files and functions that are too long, and root scripts without ``main(argv=None)``."""
    faults = []
    for path in sources(root):
        name = str(path.relative_to(root))
        text = path.read_text(encoding="utf-8")
        is_script = path.parent == root
        limit = MAX_SCRIPT_LINES if is_script else MAX_FILE_LINES
        num_lines = text.count("\n")
        if num_lines > limit:
            faults.append(f"{name} has {num_lines} lines, more than {limit}")
        functions = list(_functions(ast.parse(text)))
        for node in functions:
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                faults.append(f"{name}: {node.name} has {length} lines")
        if is_script and not any(_is_main(node) for node in functions):
            faults.append(f"{name} has no main(argv=None)")
    return faults


def _functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def _is_main(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    defaults = node.args.defaults
    return (
        node.name == "main"
        and [arg.arg for arg in node.args.args] == ["argv"]
        and len(defaults) == 1
        and isinstance(defaults[0], ast.Constant)
        and defaults[0].value is None
    )
