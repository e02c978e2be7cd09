"""What the conformance kit is told: conformance.toml, and the provider it is to try."""

import subprocess
import sys

import pytest

from eager_backend import EagerBackend
from fakes.dists import FakeSite
from hardpoint import (
    BackendInfo,
    ConfigError,
    Device,
    Probe,
    ProviderNotFound,
    Registry,
    hookimpl,
)
from hardpoint.testing.settings import Settings
from hardpoint.testing.subject import Subject, split_key

WHOLE = """
["backend:acme"]
precision = "fp16"
config = { device_count = 1 }
options = { mode = "fast" }
golden = "files/golden"

["backend:acme".expected-failures]
nan_and_infinity = "the firmware flushes NaN to zero (bug 1234)"
"operator:kthvalue" = "sorts descending (bug 1250)"

["transport:acme"]
config = { threads = 2 }
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "conformance.toml"


def refusal(path, provider="backend:acme"):
    with pytest.raises(ConfigError) as caught:
        Settings.read(path, provider)
    said = str(caught.value)
    head, cause, remedy = said.splitlines()
    assert head == f"the settings of the conformance kit are unusable: {path}"
    assert remedy == "  remedy: docs/how-to/check-a-plugin.md shows every setting"
    return cause.removeprefix("  cause: ")


def test_without_a_file_everything_is_by_default():
    assert Settings.read(None, "backend:acme") == Settings()


def test_each_provider_reads_its_own_table(file):
    file.write_text(WHOLE)
    acme = Settings.read(file, "backend:acme")
    assert acme.precision == "fp16"
    assert acme.config == {"device_count": 1}
    assert acme.options == {"mode": "fast"}
    assert acme.expected_failures == {
        "nan_and_infinity": "the firmware flushes NaN to zero (bug 1234)",
        "operator:kthvalue": "sorts descending (bug 1250)",
    }
    assert Settings.read(file, "transport:acme") == Settings(config={"threads": 2}, path=file)
    assert Settings.read(file, "backend:other") == Settings(path=file)


def test_a_folder_is_found_beside_the_file(file):
    file.write_text(WHOLE)
    settings = Settings.read(file, "backend:acme")
    assert settings.folder("hostile") is None
    with pytest.raises(ConfigError, match="golden is 'files/golden', and there is no such folder"):
        settings.folder("golden")
    (file.parent / "files" / "golden").mkdir(parents=True)
    assert settings.folder("golden") == file.parent / "files" / "golden"


def test_without_a_file_a_folder_is_found_from_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "golden").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Settings(golden="golden").folder("golden").samefile(tmp_path / "golden")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('["backend:acme"]\nprecison = "fp16"', "there is no setting 'precison'; did you mean 'precision'?"),
        ('["backend:acme"]\nexpected_failures = {}', "there is no setting 'expected_failures'; did you mean 'expected-failures'?"),
        ('["backend:acme"]\nprecision = 16', "setting 'precision' is 16, not text"),
        ('["backend:acme"]\nconfig = "fast"', "setting 'config' is 'fast', not a table"),
        ('["backend:acme".expected-failures]\nslow = ""', "the expected failure 'slow' has no reason"),
        ('["backend:acme".expected-failures]\nslow = true', "the expected failure 'slow' has no reason"),
        ('precision = "fp16"', "'precision' is no table; every table is named after a provider"),
        ('[backend.acme]\nprecision = "fp16"', "table 'backend' names no provider; write [\"kind:name\"]"),
        ('["backned:acme"]', "table 'backned:acme' names no provider; write [\"kind:name\"]"),
        ('["backend:"]', "table 'backend:' names no provider; write [\"kind:name\"]"),
    ],
)  # fmt: skip
def test_a_setting_that_is_none_is_refused_with_the_reason(file, text, cause):
    file.write_text(text)
    assert refusal(file) == cause


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(file):
    assert refusal(file).startswith("FileNotFoundError: ")
    file.write_text("[backend:acme")
    assert refusal(file).startswith("TOMLDecodeError: ")
    file.write_bytes(b'["backend:acme"]\nprecision = "\xff"')
    assert refusal(file).startswith("UnicodeDecodeError: ")
    file.write_text("#" * (1 << 20) + "#")
    assert refusal(file) == "it has more than 1048576 bytes"
    assert refusal(file.parent).startswith("IsADirectoryError: ")


def test_a_provider_is_written_kind_colon_name():
    assert split_key("backend:acme") == ("backend", "acme")
    assert split_key("transport:a:b") == ("transport", "a:b")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("backned:acme", "'backned:acme' names no provider; did you mean 'backend'?"),
        ("acme", "'acme' names no provider; known: backend, partitioner, serializer, transport"),
        ("backend", "'backend' names no provider"),
        ("backend:", "'backend:' names no provider"),
        ("", "'' names no provider; known: backend, partitioner, serializer, transport"),
    ],
)
def test_what_names_no_provider_is_refused_with_how_to_write_it(key, words):
    with pytest.raises(ConfigError) as caught:
        split_key(key)
    assert str(caught.value) == f"{words}\n  remedy: write kind:name, e.g. backend:cpu"


class Acme:
    """A backend whose answers a test chooses, and which notes what it is opened with."""

    def __init__(self, *precisions, available=True):
        self.precisions, self.available, self.given = precisions, available, []

    @hookimpl
    def hardpoint_backend_info(self):
        return BackendInfo(requires_api=(1, 0), summary="acme", precisions=self.precisions)

    @hookimpl
    def hardpoint_backend_probe(self, request):
        return (
            Probe.ready(Device("0", "a")) if self.available else Probe.unavailable("no card here")
        )

    @hookimpl
    def hardpoint_backend_open(self, config):

        self.given.append(config)
        return EagerBackend("acme", lambda node: True, lambda executable: executable)


def subject(plugin, **settings):
    registry = Registry(path=[])
    registry.add("backend", "acme", plugin)
    return Subject("backend", "acme", Settings(**settings), registry=registry)


def test_models_are_computed_in_the_chosen_precision_else_fp32_else_the_first():
    assert subject(Acme("fp16", "fp32")).precision == "fp32"
    assert subject(Acme("int8", "fp16")).precision == "int8"
    assert subject(Acme("int8", "fp16"), precision="fp16").precision == "fp16"


def test_a_precision_that_it_does_not_declare_is_refused_with_those_it_does():
    with pytest.raises(ConfigError) as caught:
        _ = subject(Acme("int8", "fp16"), precision="fp8").precision
    assert str(caught.value) == (
        "backend:acme does not declare precision 'fp8'\n"
        "  remedy: choose one of int8, fp16 in conformance.toml"
    )


def test_it_is_opened_with_the_configuration_of_the_settings_or_another():
    plugin = Acme("fp32")
    acme = subject(plugin, config={"device_count": 1})
    acme.open()
    acme.open({"device_count": 2})
    assert plugin.given == [{"device_count": 1}, {"device_count": 2}]


def test_where_it_is_unavailable_a_check_is_skipped_with_its_own_reason():
    acme = subject(Acme("fp32", available=False))
    for skip in (acme.require_available, acme.open):
        with pytest.raises(pytest.skip.Exception, match="backend:acme is unavailable here: no card here"):  # fmt: skip
            skip()


def test_a_provider_that_is_not_there_is_an_error_of_the_registry():
    missing = Subject("backend", "acme", registry=Registry(path=[]))
    with pytest.raises(ProviderNotFound, match="nothing installed provides backend:acme"):
        _ = missing.info


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = FakeSite(tmp_path_factory.mktemp("site"))
    made.add_backend("null")
    return made


def pytest_says(site, *options, settings=None):
    """What a vendor sees who runs the kit's suite with these options."""
    rootdir = site.root / "project"
    rootdir.mkdir(exist_ok=True)
    (rootdir / "conformance.toml").unlink(missing_ok=True)
    if settings is not None:
        (rootdir / "conformance.toml").write_text(settings)
    source = rootdir / "test_mine.py"
    source.write_text(
        "from hardpoint.testing.every import EveryKind\n"
        "class TestNull(EveryKind):\n    kind = 'backend'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "hardpoint.testing", "-p", "no:cacheprovider",
         "-q", "--rootdir", str(rootdir), "-c", "/dev/null", str(source), *options],
        env=site.environment(), cwd=rootdir, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        ((), None, "TestNull needs a provider: --provider backend:NAME"),
        (("--provider", "null"), None, "'null' names no provider; known: backend"),
        (("--provider", "backend:null", "--checks", "flies"), None, "the kit has no check flies"),
        (("--provider", "backend:null"), '["backend:null"]\nspeed = 1', "there is no setting 'speed'"),
        (("--provider", "transport:null"), None, "TestNull is for a backend, not transport:null"),
    ],
)  # fmt: skip
def test_a_wrong_option_ends_the_run_with_the_reason(site, options, settings, words):
    code, said = pytest_says(site, *options, settings=settings)
    assert code != 0
    assert words in said


def test_an_expected_failure_is_shown_as_known_and_is_strict(site):
    options = ("--provider", "backend:null", "--checks", "unknown_option_is_named")
    code, said = pytest_says(site, *options)
    assert code == 1
    expected = '["backend:null".expected-failures]\n{} = "bug 7"\n'
    code, said = pytest_says(site, *options, settings=expected.format("unknown_option_is_named"))
    assert (code, "1 xfailed" in said) == (0, True), said
    options = ("--provider", "backend:null", "--checks", "declares_what_it_is")
    code, said = pytest_says(site, *options, settings=expected.format("declares_what_it_is"))
    assert (code, "[XPASS(strict)] bug 7" in said) == (1, True), said
