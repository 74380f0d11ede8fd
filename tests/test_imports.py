"""The layers hold, files stay short, and importing a module does nothing but define things."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.layering import circle_faults, layer_faults, packages, page_faults, size_faults
from tests.tiny import ROOT

_IMPORT_ALL = """
import importlib, json, logging, random, signal, sys
root, modules, scripts = json.loads(sys.argv.pop())
sys.path.insert(0, root)
sys.dont_write_bytecode = True
for name in scripts:
    getattr(importlib.import_module(name), "create_parser", dict)()
assert not {"torch", "numpy"} & set(sys.modules), "a parser needs torch or numpy"
handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
state = random.getstate()
import torch
seed, is_default = torch.initial_seed(), torch.get_default_dtype()
for name in modules:
    importlib.import_module(name)
assert handlers == [
    signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
]
assert random.getstate() == state and torch.initial_seed() == seed
assert torch.get_default_dtype() == is_default and torch.is_grad_enabled()
assert not logging.getLogger().handlers
assert not torch.distributed.is_initialized()
"""


def test_layers_import_only_what_they_may() -> None:
    assert set(packages(ROOT)) >= {"models", "diffusion", "oracle", "utils", "ddpm", "sr_var"}
    assert layer_faults(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("models/layers.py", "import numpy as np", "models/layers.py imports numpy"),
        ("models/layers.py", "from utils import logger", "models/layers.py imports utils"),
        ("models/layers.py", "import diffusion.losses", "models/layers.py imports diffusion"),
        ("diffusion/losses.py", "import PIL.Image", "diffusion/losses.py imports PIL"),
        ("diffusion/losses.py", "from models import layers", "diffusion/losses.py imports models"),
        ("utils/logger.py", "from task_a import flags", "utils/logger.py imports task_a"),
        ("utils/logger.py", "import models.layers", "utils/logger.py imports models"),
        ("utils/logger.py", "def f():\n    import run_b", "utils/logger.py imports run_b"),
        ("task_a/flags.py", "from task_b import flags", "task_a/flags.py imports task_b"),
        ("task_a/flags.py", "import run_a", "task_a/flags.py imports run_a"),
        ("utils/logger.py", "from ddpm import flags", "utils/logger.py imports ddpm"),
        ("ddpm/flags.py", "from task_a import flags", "ddpm/flags.py imports task_a"),
        ("ddpm/flags.py", "import oracle.law", "ddpm/flags.py imports oracle"),
        ("run_a.py", "import models.layers", "run_a.py imports models"),
        ("run_a.py", "def f():\n    from diffusion import losses", "run_a.py imports diffusion"),
        ("run_a.py", "import task_b.flags", "run_a.py imports task_a and task_b"),
    ],
)
def test_planted_import_is_found(tmp_path: Path, file: str, line: str, fault: str) -> None:
    _write_clean_tree(tmp_path)
    assert layer_faults(tmp_path) == []
    with open(tmp_path / file, "a", encoding="utf-8") as source:
        source.write(line + "\n")
    assert layer_faults(tmp_path) == [fault]


def test_imports_make_no_circle_between_modules_or_rooms() -> None:
    assert circle_faults(ROOT) == []


@pytest.mark.parametrize(
    ("lines", "circle"),
    [
        (
            {
                "models/layers.py": "import models.other",
                "models/other.py": "from models import layers",
            },
            ["models.layers", "models.other"],
        ),
        (
            {
                "models/layers.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
                "    from models.other import X",
                "models/other.py": "def f():\n    from models.layers import Y",
            },
            ["models.layers", "models.other"],
        ),
        (
            {
                "utils/a/one.py": "import utils.b.one",
                "utils/b/one.py": "",
                "utils/b/two.py": "import utils.a.two",
                "utils/a/two.py": "",
            },
            ["utils.a", "utils.b"],
        ),
        (
            {"utils/logger.py": "import utils.a.one", "utils/a/two.py": "import utils.logger"},
            ["utils.a", "utils.logger"],
        ),
    ],
)
def test_planted_circle_is_found(tmp_path: Path, lines: dict[str, str], circle: list[str]) -> None:
    _write_clean_tree(tmp_path)
    for name in ("models/other.py", "utils/a/one.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "models/layers.py").write_text("")
    assert circle_faults(tmp_path) == []
    for name, text in lines.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert circle_faults(tmp_path) == [circle]


def test_the_page_names_each_module_once() -> None:
    assert page_faults(ROOT) == []


def test_planted_gap_on_the_page_is_found(tmp_path: Path) -> None:
    _write_clean_tree(tmp_path)
    (tmp_path / "models/cpu").mkdir()
    (tmp_path / "models/cpu/fast.py").touch()
    page = """# Architecture
```
run_a.py  run_b.py
models/   networks
  layers                 all of them
models/cpu/   kernels
  fast
diffusion/   mathematics
  losses  schedules      of chains
oracle/   law
  law
utils/
  logger
ddpm/
  flags
task_a/
  flags                  flags
task_b/
  flags  flags           flags
docs/   tests
```
"""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/architecture.md").write_text(page)
    assert page_faults(tmp_path) == [
        "diffusion.schedules is on the page and is no module",
        "task_b.flags is on the page more than once",
    ]
    (tmp_path / "docs/architecture.md").write_text(page.replace("  fast\n", ""))
    assert "models.cpu.fast is not on the page" in page_faults(tmp_path)


def _write_clean_tree(root: Path) -> None:
    files = {
        "models/layers.py": "import math\nimport torch\nfrom models import other\n",
        "diffusion/losses.py": "import numpy as np\nimport torch.nn\n",
        "utils/logger.py": "import blobfile\nimport tensorboardX\nfrom utils import errors\n",
        "ddpm/flags.py": "import numpy\nfrom diffusion import losses\nfrom utils import logger\n",
        "oracle/law.py": "import torch\n",
        "task_a/flags.py": "import scipy\nfrom diffusion import losses\nfrom ddpm import flags\n",
        "task_b/flags.py": "from utils import logger\nfrom . import other\n",
        "run_a.py": "from task_a import flags\nfrom utils import errors\n",
        "run_b.py": "from task_b import flags\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        if path.parent != root:
            (path.parent / "__init__.py").touch()


def test_files_and_functions_are_short_and_scripts_have_a_main() -> None:
    assert size_faults(ROOT) == []


def test_planted_length_is_found(tmp_path: Path) -> None:
    _write_clean_tree(tmp_path)
    main = "def main(argv=None):\n    return 0\n"
    for script in ("run_a.py", "run_b.py"):
        (tmp_path / script).write_text(main)
    assert size_faults(tmp_path) == []
    (tmp_path / "run_a.py").write_text("def main(argv):\n    return 0\n" + "\n" * 79)
    long_function = "def f():\n" + "    pass\n" * 50
    (tmp_path / "models/layers.py").write_text(long_function + "\n" * 450)
    assert size_faults(tmp_path) == [
        "run_a.py has 81 lines, more than 80",
        "run_a.py has no main(argv=None)",
        "models/layers.py has 501 lines, more than 500",
        "models/layers.py: f has 51 lines",
    ]


def test_importing_any_module_has_no_side_effect(tmp_path: Path) -> None:
    """No file appears where a program may write one; no seed, handler or group is set.

    Parsers need neither torch nor numpy, so ``--help`` answers at once.
    """
    scripts = [path.stem for path in ROOT.glob("*.py")]
    files = [path for package in packages(ROOT) for path in (ROOT / package).rglob("*.py")]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    modules = sorted({name.removesuffix(".__init__") for name in modules})
    places = {name: tmp_path / name for name in ("cwd", "home", "temp", "mpl")}
    for place in places.values():
        place.mkdir()
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_IMPORT_ALL)]
        + [json.dumps([str(ROOT), modules, scripts])],
        cwd=places["cwd"],
        # matplotlib makes its own configuration folder at import
        env={**os.environ, "HOME": str(places["home"]), "TMPDIR": str(places["temp"])}
        | {"MPLCONFIGDIR": str(places["mpl"]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == ""
    for name in ("cwd", "home", "temp"):
        assert list(places[name].rglob("*")) == []
