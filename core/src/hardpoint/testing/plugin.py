"""The pytest side: options, the ``subject`` and ``figures`` fixtures, and the record of a run."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from hardpoint.errors import HardpointError
from hardpoint.testing import results
from hardpoint.testing.check import LEVELS, check_of
from hardpoint.testing.journal import Journal
from hardpoint.testing.settings import FILE, Settings
from hardpoint.testing.subject import Effort, Subject, split_key
from hardpoint.testing.suites import refuse_unknown_failures

_RUN = pytest.StashKey["results.Run"]()
_FIGURES = pytest.StashKey[dict[str, Any]]()
_SUITE = "hardpoint.testing.suite"
_FOLDER = Path(__file__).parent / "suite"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The kit's options."""
    group = parser.getgroup("hardpoint", "conformance kit of hardpoint")
    add = group.addoption
    add("--provider", metavar="KIND:NAME", default="", help="the provider under test")
    add(
        "--settings",
        metavar="FILE",
        help=f"settings and known failures (default: {FILE} in rootdir)",
    )
    add(
        "--samples",
        choices=("quick", "full"),
        default="quick",
        help="backends: a minute of operators, or all",
    )
    add(
        "--workers", type=int, default=2, help="backends: processes that run operators side by side"
    )
    add(
        "--operators",
        metavar="NAME,...",
        default="",
        help="backends: only these operators of the database",
    )
    add(
        "--operator-seconds",
        metavar="N",
        type=float,
        default=60.0,
        help="backends: processor time for one operator; three times that on the wall",
    )
    add(
        "--samples-cache",
        metavar="DIR",
        default="",
        help="backends: remember operator results here",
    )
    add("--report", metavar="DIR", help="write KIND-NAME.json and .html of each provider here")
    add("--checks", metavar="NAME,...", default="", help="run only these checks of the kit")
    add("--except-checks", metavar="NAME,...", default="", help="leave these checks out")
    add(
        "--journal",
        metavar="FILE",
        help="write each event here as it happens (used by the command line)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin the record of this run."""
    path = config.getoption("--journal")
    config.stash[_RUN] = results.Run(Journal(Path(path)) if path else None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of the kit's own suites only that of the provider's kind is imported: they import much."""
    kind = str(config.getoption("--provider")).partition(":")[0]
    others = {f"test_{other}" for other in LEVELS} - {f"test_{kind}"}
    if kind in LEVELS and collection_path.parent == _FOLDER and collection_path.stem in others:
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the checks that are meant, and mark the failures that the settings expect."""
    wanted = _names(config, "--checks")
    unwanted = _names(config, "--except-checks")
    kept, dropped, known = [], [], set()
    for item in items:
        check = check_of(getattr(item, "function", None))
        suite: Any = getattr(item, "cls", None)
        if check is None or suite is None:
            kept.append(item)
            continue
        known.add(check.name)
        if (
            _is_meant(config, suite)
            and (not wanted or check.name in wanted)
            and check.name not in unwanted
        ):
            kept.append(item)
            key = _key(config, suite)
            reason = _settings(config, key).expected_failures.get(check.name)
            if reason is not None:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
        else:
            dropped.append(item)
    missing = sorted((wanted | unwanted) - known) if known else []
    if missing:
        raise pytest.UsageError(f"the kit has no check {', '.join(missing)}")
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    # The lowest level first: what fails there explains the rest. Stable, so nothing else moves.
    items[:] = sorted(kept, key=_rank) if known else kept


def _rank(item: pytest.Item) -> int:
    check, suite = check_of(getattr(item, "function", None)), getattr(item, "cls", None)
    return -1 if check is None or suite is None else LEVELS[suite.kind].index(check.level)


def _names(config: pytest.Config, option: str) -> set[str]:
    return {name for name in str(config.getoption(option)).split(",") if name}


def _is_meant(config: pytest.Config, suite: Any) -> bool:
    if suite.provider or not suite.__module__.startswith(_SUITE):
        return True
    return bool(suite.kind == split_key(_key(config, suite))[0])


def _key(config: pytest.Config, suite: Any) -> str:
    key = suite.provider or config.getoption("--provider")
    if not key:
        raise pytest.UsageError(f"{suite.__name__} needs a provider: --provider {suite.kind}:NAME")
    try:
        split_key(key)
    except HardpointError as error:
        raise pytest.UsageError(str(error)) from error
    return str(key)


def _settings(config: pytest.Config, key: str) -> Settings:
    given = config.getoption("--settings")
    usual = config.rootpath / FILE
    path = Path(given) if given else usual if usual.is_file() else None
    try:
        return Settings.read(path, key)
    except HardpointError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="class")
def subject(request: pytest.FixtureRequest) -> Subject:
    """The provider under test."""
    config = request.config
    key = _key(config, request.cls)
    kind, name = split_key(key)
    try:
        refuse_unknown_failures(_settings(config, key), kind)
    except HardpointError as error:
        raise pytest.UsageError(str(error)) from error
    if kind != request.cls.kind:
        raise pytest.UsageError(f"{request.cls.__name__} is for a {request.cls.kind}, not {key}")
    effort = Effort(
        samples=config.getoption("--samples"),
        workers=config.getoption("--workers"),
        cache=config.getoption("--samples-cache"),
        operators=tuple(filter(None, config.getoption("--operators").split(","))),
        seconds=config.getoption("--operator-seconds"),
    )
    made = Subject(kind, name, _settings(config, key), effort)
    made.progress = config.stash[_RUN].progress
    config.stash[_RUN].subjects[key] = made
    return made


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the check measures or counts: JSON-serializable, shown in the report."""
    found: dict[str, Any] = request.node.stash.setdefault(_FIGURES, {})
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Say in the journal what begins, so that a crash is laid to the right check."""
    check = check_of(getattr(item, "function", None))
    if check is not None:
        item.config.stash[_RUN].begin(check)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record how each check ended."""
    report = yield
    check = check_of(getattr(item, "function", None))
    if check is not None:
        key = _key(item.config, item.cls)  # type: ignore[attr-defined]
        figures = item.stash.get(_FIGURES, {})
        item.config.stash[_RUN].note(key, check, report, call.excinfo, figures)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the reports that ``--report`` asks for."""
    session.config.stash[_RUN].finish()
    folder = session.config.getoption("--report")
    if folder and not session.config.getoption("collectonly"):
        session.config.stash[_RUN].write_reports(Path(folder))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A line for each provider: its level."""
    for line in config.stash[_RUN].summary():
        terminalreporter.write_line(line)
