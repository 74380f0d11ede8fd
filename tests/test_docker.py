"""The Dockerfile, read as text: what it builds on, copies, runs and starts, and as whom.

No daemon is asked. Each rule is shown to find what breaks it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import glob

import pytest

from tests.tiny import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SHELL = ("apt-get", "groupadd", "install", "rm", "useradd")
TARGETS = ("base", "gpu", "cpu")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """What is not a flag of the instruction."""
        return [word for word in self.text.split() if not word.startswith("--")]

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a RUN in shell form."""
        return [shlex.split(part) for part in re.split(r"&&|;|\|\|", self.text)]


def parse(text: str) -> list[Instruction]:
    """All instructions, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    parts = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [Instruction(name, rest.strip()) for name, rest in parts]


def stages(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each target with those that it is built on, without FROM."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for one in parse(text):
        if one.name == "FROM":
            current = list(found.get(one.words[0], []))
            found[one.words[-1]] = current
        else:
            current.append(one)
    return found


def base_problems(text: str) -> list[str]:
    """Images without a tag, or with one that moves."""
    own, problems = set(), []
    for one in parse(text):
        if one.name != "FROM":
            continue
        image = one.words[0]
        tag = image.partition(":")[2]
        if image not in own and (not re.match(r"\d+\.\d+", tag) or "latest" in tag):
            problems.append(f"base image {image}")
        own.add(one.words[-1])
    return problems


def copy_problems(text: str) -> list[str]:
    """Sources that are not in the tree, or come from elsewhere."""
    problems = [f"ADD {one.text}" for one in parse(text) if one.name == "ADD"]
    for one in parse(text):
        if one.name == "COPY":
            if "--chown=toolkit:toolkit" not in one.text:
                problems.append(f"owner of {one.text}")
            sources = one.words[:-1]
            problems += [f"source {name}" for name in sources if not glob(str(ROOT / name))]
    return problems


def run_problems(text: str) -> list[str]:
    """Commands that are neither of the system nor in the tree; lists of packages that are kept."""
    problems = []
    for one in parse(text):
        if one.name != "RUN":
            continue
        names = [words[0] for words in one.commands]
        for name in names:
            path = ROOT / name
            if name not in SHELL and not (path.is_file() and path.stat().st_mode & 0o111):
                problems.append(f"command {name}")
        installs = [words for words in one.commands if words[:2] == ["apt-get", "install"]]
        if installs and one.commands[-1] != ["rm", "-rf", "/var/lib/apt/lists/*"]:
            problems.append("package lists are kept")
        if any("--no-install-recommends" not in words for words in installs):
            problems.append("recommended packages are installed")
        if installs and one.commands[0] != ["apt-get", "update"]:
            problems.append("packages of an old list")
    return problems


def stage_problems(text: str) -> list[str]:
    """How each target that people start ends: its folder, its user, its command."""
    problems = []
    for name, all_of in stages(text).items():
        if name == "base":
            continue
        last = {one.name: one.text for one in all_of}
        if not last.get("WORKDIR", "").startswith("/"):
            problems.append(f"{name}: WORKDIR")
        if last.get("USER", "root").split(":")[0] in ("", "root", "0"):
            problems.append(f"{name}: USER")
        try:
            if not isinstance(json.loads(last.get("CMD", "")), list):
                raise ValueError("no list")
        except ValueError:
            problems.append(f"{name}: CMD")
        users = [i for i, one in enumerate(all_of) if one.name == "USER"]
        setups = [i for i, one in enumerate(all_of) if one.text == "./setup.sh"]
        if not users or not setups or max(users) > min(setups):
            problems.append(f"{name}: set up as another user")
        if setups and [o.name for o in all_of[: setups[0]]].count("COPY") != 1:
            problems.append(f"{name}: all code before the packages")
    return problems


def problems_of(text: str) -> list[str]:
    """All that the rules find."""
    rules = (base_problems, copy_problems, run_problems, stage_problems)
    return [problem for rule in rules for problem in rule(text)]


def test_the_dockerfile_keeps_every_rule() -> None:
    assert problems_of(TEXT) == []
    assert tuple(stages(TEXT)) == TARGETS


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (":3.11-slim-bookworm", "", "base image python"),
        (":3.11-slim-bookworm", ":latest", "base image python:latest"),
        (":3.11-slim-bookworm", ":slim", "base image python:slim"),
        ("FROM base AS cpu", "FROM bases AS cpu", "base image bases"),
        ("COPY --chown=toolkit:toolkit . .", "COPY . .", "owner of . ."),
        ("requirements*.lock", "requirement.lock", "source requirement.lock"),
        ("RUN ./setup.sh", "ADD https://example.org/x.tar /", "ADD https://example.org/x.tar /"),
        ("RUN ./setup.sh", "RUN ./set_up.sh", "command ./set_up.sh"),
        ("rm -rf /var/lib/apt/lists/*", "rm -rf /tmp/*", "package lists are kept"),
        ("--no-install-recommends ", "", "recommended packages are installed"),
        ("apt-get update \\\n    && ", "", "packages of an old list"),
        ("WORKDIR /toolkit", "WORKDIR toolkit", "gpu: WORKDIR"),
        ("USER $UID:$GID", "USER root", "cpu: USER"),
        ("USER $UID:$GID\n", "", "gpu: USER"),
        ('CMD ["make", "demo"]', "CMD make demo", "cpu: CMD"),
        ("RUN ./setup.sh", "COPY . .\nRUN ./setup.sh", "cpu: all code before the packages"),
    ],
)
def test_each_rule_finds_what_breaks_it(old: str, new: str, problem: str) -> None:
    assert old in TEXT
    assert problem in problems_of(TEXT.replace(old, new))


def test_its_two_commands_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"```bash\n(.*?)```", readme, re.DOTALL)
    assert first is not None
    for name in TARGETS[1:]:
        target = stages(TEXT)[name]
        (setup,) = [one.text for one in target if one.name == "RUN" and "setup" in one.text]
        assert f"`{setup}` makes it" in readme
        (start,) = [json.loads(one.text) for one in target if one.name == "CMD"]
        assert start == first[1].splitlines()[0].partition("#")[0].split()
        assert f"\n{start[1]}: setup\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_a_new_revision_does_not_install_anything_again() -> None:
    for name in TARGETS[1:]:
        texts = [one.text for one in stages(TEXT)[name]]
        assert texts.index("REVISION=") > texts.index("./setup.sh")
        assert "TOOLKIT_REVISION=$REVISION" in texts
    start = (ROOT / "utils" / "runs" / "start.py").read_text(encoding="utf-8")
    assert '"TOOLKIT_REVISION"' in start


def test_what_setup_reads_is_there_before_it_runs() -> None:
    setup = (ROOT / "setup.sh").read_text(encoding="utf-8")
    read = set(re.findall(r"\brequirements[\w-]*\.(?:txt|lock)", setup)) | {"setup.sh"}
    copy = next(one for one in stages(TEXT)["base"] if one.name == "COPY")
    copied = {path.name for name in copy.words[:-1] for path in ROOT.glob(name)}
    assert read <= copied


def test_torch_and_python_are_those_of_setup_and_of_the_lock() -> None:
    setup = (ROOT / "setup.sh").read_text(encoding="utf-8")
    wanted = re.search(r"TORCH_SPEC:-(torch==[\d.]+)", setup)
    assert wanted is not None and f"TORCH_SPEC={wanted[1]}+cpu" in TEXT
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()[0]
    python = re.search(r"Python (\d\.\d+)", lock)
    assert python is not None and f"FROM python:{python[1]}-" in TEXT and "LOCKED=1" in TEXT


# -- What the build sees


def is_ignored(path: str, rules: list[str]) -> bool:
    """Whether .dockerignore leaves a path out: the last rule that fits it, or a folder of it."""
    parts = path.split("/")
    starts = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        is_anywhere = rule.removeprefix("!").startswith("**/")
        for start in starts:
            name = start.rpartition("/")[2] if is_anywhere else start
            if name.count("/") == pattern.count("/") and fnmatch(name, pattern):
                ignored = not rule.startswith("!")
    return ignored


def ignore_rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".venv-app/bin/python",
        "sr_var/__pycache__/values.cpython-311.pyc",
        "checkpoints/sr_mean/demo/model001500.pt",
        "logs/demo/log.txt",
        "outputs/api/index.html",
        "data/mine/train_data_info.pkl",
    ],
)
def test_environments_and_artefacts_stay_out_of_the_image(path: str) -> None:
    assert is_ignored(path, ignore_rules())


def test_every_file_of_the_repository_but_those_of_the_build_is_in_the_image() -> None:
    answer = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if answer.returncode:
        pytest.skip("no checkout")
    left_out = {path for path in answer.stdout.splitlines() if is_ignored(path, ignore_rules())}
    assert left_out <= {"Dockerfile", ".dockerignore", ".ci/run"}
    assert {"data/demo/README.md", "outputs/README.md"} <= set(answer.stdout.splitlines())


def test_the_page_mounts_every_folder_that_keeps_results() -> None:
    page = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    ignored = {rule.partition("/")[0] for rule in ignore_rules() if rule.endswith("/*")}
    assert ignored == set(re.findall(r"--volume \./\w+:/toolkit/(\w+)", page))
    for target in re.findall(r"--target (\w+)", page):
        assert target in TARGETS
