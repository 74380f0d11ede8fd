"""No module of the project can run what a file says: read off the source, calls one by one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layering import sources
from tests.tiny import ROOT

_NEVER = {
    "eval": "runs text",
    "exec": "runs text",
    "compile": "makes code of text",
    "__import__": "imports by name",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "pickle.load": "unpickles",
    "pickle.loads": "unpickles",
    "pickle.Unpickler": "unpickles",
    "marshal.load": "unpickles",
    "marshal.loads": "unpickles",
    "shelve.open": "unpickles",
    "joblib.load": "unpickles",
    "dill.load": "unpickles",
    "yaml.unsafe_load": "builds objects",
    "yaml.full_load": "builds objects",
    "torch.jit.load": "runs a program",
    "torch.hub.load": "runs a repository",
    "torch.serialization.add_safe_globals": "lets files name functions",
    "tarfile.open": "unpacks; see image_ddpm/importers/archives.py",
}
# keyword of any call → values that are refused
_KEYWORDS = {"shell": {True}, "allow_pickle": {True}, "weights_only": {False, None}}
# function → keywords without which it is refused
_NEEDED = {"torch.load": {"weights_only", "map_location"}, "np.load": {"allow_pickle"}}
_METHODS = {"extractall": "unpacks", "read_pickle": "unpickles"}


def _faults(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module in {"pickle", "marshal", "builtins"}:
            yield f"imports out of {node.module}"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in _NEVER:
            yield f"{name} {_NEVER[name]}"
        if name.rpartition(".")[2] in _METHODS and "." in name:
            yield f"{name} {_METHODS[name.rpartition('.')[2]]}"
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        for keyword, refused in _KEYWORDS.items():
            value = given.get(keyword)
            if isinstance(value, ast.Constant) and value.value in refused:
                yield f"{name} with {keyword}={value.value}"
            elif value is not None and not isinstance(value, ast.Constant):
                yield f"{name} with a {keyword} that is not written out"
        loader = given.get("Loader")
        if name == "yaml.load" and (loader is None or ast.unparse(loader) != "yaml.BaseLoader"):
            yield "yaml.load without Loader=yaml.BaseLoader, which makes text alone"
        if not _NEEDED.get(name, set()) <= given.keys():
            yield f"{name} without {', '.join(sorted(_NEEDED[name] - given.keys()))}"


def _own_sources() -> list[Path]:
    return [path for path in sources(ROOT) if path.relative_to(ROOT).parts[0] != "tests"]


def test_no_module_can_run_what_a_file_says_but_where_it_is_trusted() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in _own_sources()
        for fault in _faults(path.read_text(encoding="utf-8"))
    ]
    # only with --trust_features True (SECURITY.md; tests/image_ddpm/quality/test_published.py)
    assert found == ["image_ddpm/quality/features.py: torch.jit.load runs a program"]


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "def f():\n    exec(text)",
        "pickle.load(file)",
        "pickle.Unpickler(file).load()",
        "from pickle import loads",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "torch.load(path, map_location='cpu')",
        "torch.load(path, map_location='cpu', weights_only=False)",
        "torch.load(path, weights_only=True)",
        "subprocess.run(text, shell=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text, Loader=loader)",
        "yaml.unsafe_load(text)",
        "archive.extractall(path)",
        "torch.jit.load(path)",
    ],
)
def test_planted_call_is_found(line: str) -> None:
    assert list(_faults(line))


def test_what_is_safe_is_let_through() -> None:
    safe = "torch.load(f, map_location='cpu', weights_only=True)\nmodel.eval()\nre.compile(text)\n"
    safe += "yaml.load(text, Loader=yaml.BaseLoader)\n"
    assert list(_faults(safe + "np.load(path, allow_pickle=False)\npickle.dumps(value)")) == []
