"""What files import, read from their text, for the tests that hold the order of the layers."""

import ast
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def statements(file: str | Path, everywhere: bool = True) -> list[tuple[str, list[str]]]:
    """Modules that a file imports, each with the names taken from it, none for a plain import.

    All of them, or only those that importing the file itself runs.
    """
    found = []

    def visit(node):
        if isinstance(node, ast.Import):
            found.extend((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.append(("." * node.level + (node.module or ""), [alias.name for alias in node.names]))
        if not everywhere:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                return
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                for child in node.orelse:
                    visit(child)
                return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse((ROOT / file).read_text()))
    return found


def imports(file: str | Path, everywhere: bool = True) -> list[str]:
    """Dotted names that a file imports, both the module and what is taken from it."""
    return [
        name
        for module, names in statements(file, everywhere)
        for name in (module, *(f"{module}.{one}" for one in names))
    ]


def inside(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages, or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def imported_files(file: str | Path, package: str, folder: Path) -> list[Path]:
    """Files of a package, which lies in ``folder``, that a file imports, those inside functions counted."""
    found = []
    for module, names in statements(file):
        if module.startswith("."):  # of the package's own file of names
            module = f"{package}{module}".rstrip(".")
        if not inside(module, package):
            continue
        parts = module.removeprefix(package).strip(".").split(".") if module != package else []
        base = folder.joinpath(*parts)
        children = [_file(base / name) for name in names] if base.is_dir() else []
        found += [child for child in children if child]
        # What is no module of its own is taken from the module itself.
        if not names or len([c for c in children if c]) < len(names):
            itself = _file(base)
            if itself is None:
                raise ValueError(f"{file} imports {module}, which is no file")
            found.append(itself)
    return found


def cycles(graph: dict[Path, Iterable[Path]]) -> list[list[Path]]:
    """Groups of files of which each imports every other in the end, and files that import themselves."""
    reached = {start: _reachable(graph, start) for start in graph}
    together = {frozenset(b for b in reached[a] if a in reached.get(b, ())) for a in graph if a in reached[a]}
    return [sorted(group) for group in together]


def _file(path: Path) -> Path | None:
    for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _reachable(graph: dict[Path, Iterable[Path]], start: Path) -> set[Path]:
    found: set[Path] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph.get(node, ())
    return found
