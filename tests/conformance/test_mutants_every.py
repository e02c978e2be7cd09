"""Each check that all kinds share fails a provider that has just that flaw."""

import sys

import pytest

from hardpoint import Registry
from hardpoint.testing.check import CheckFailed
from hardpoint.testing.every import EveryKind
from hardpoint.testing.every.inside.probe import plain
from hardpoint.testing.every.probing import judge
from hardpoint.testing.settings import Settings
from hardpoint.testing.subject import Subject
from harness import MODULES, Mutant, asked_for, judged, run_checks

MODULE = "mutants_every"
ONE_DEVICE = '["backend:{}"]\nconfig = {{ devices = 1 }}\n'


def mutant(cls, check, says, module=MODULE, settings=""):
    name = "".join(f"-{c.lower()}" if c.isupper() else c for c in cls).strip("-")
    return Mutant(name, f"{module}:{cls}", check, says, settings.format(name))


MUTANTS = [
    mutant("NoSummary", "declares_what_it_is", "info.summary is empty"),
    mutant("heavy", "loads_without_torch",
           "imported torch (mutants_every_heavy > mutants_every_sdk > torch)", "mutants_every_heavy"),
    mutant("slow", "loads_quickly", "what it imports: mutants_every_slow", "mutants_every_slow"),
    mutant("CountsWhoAsks", "registers_twice", "after a second registry"),
    mutant("RegistersOnce", "registers_twice", "acme is registered already"),
    mutant("ProbesOnce", "registers_twice", "available=[True, False, False]"),
    mutant("OpensOneForAll", "opens_twice", "gave the same Null twice"),
    mutant("LastOneCounts", "opens_twice", "the second, after the first was let go, does not work"),
    mutant("ForkHangs", "survives_fork", "ended as 'hung' (no answer within"),
    mutant("ForkCrashes", "survives_fork", "ended as 'died' (wait status"),
    mutant("ForkRaises", "survives_fork", "cannot re-initialize in a forked subprocess"),
    mutant("NeverInAChild", "survives_fork", "forked before it was loaded, loading, opening and using it ended as 'failed'"),
    mutant("NeverSpawned", "survives_spawn", "daemonic processes are not allowed"),
    mutant("DiesSpawned", "survives_spawn", "ended as 'died' (exit code -6)"),
    mutant("StartsTwice", "survives_threads", "'NoneType' object is not callable"),
    mutant("OtherTypeWhileBusy", "survives_threads", "different types: ['Fallback', 'Null']"),
    mutant("RaisesOnProbe", "probe_answers", "a shallow probe raised: a probe never does"),
    mutant("RaisesOnDeepProbe", "probe_answers", "a deep probe raised: a probe never does"),
    mutant("ShallowKnowsLess", "probe_answers", "a shallow probe said unavailable and a deep one"),
    mutant("NeedsPath", "probe_survives_missing_hardware", "lacks everything, a shallow probe raised"),
    mutant("NeedsPathToOpen", "probe_survives_missing_hardware", "raised something raw"),
    mutant("OpensWithoutHardware", "open_says_that_it_is_unavailable", "(it gave an object)"),
    mutant("RawWithoutHardware", "open_says_that_it_is_unavailable", "raise hardpoint.ProviderUnavailable"),
    mutant("UnavailableWithoutWords", "open_says_that_it_is_unavailable", "without cause or remedy"),
    mutant("OpensWithoutHardwareElsewhere", "open_says_that_it_is_unavailable",
           "on a machine that lacks everything its probe says unavailable (no accelerator"),
    mutant("AcceptsAnything", "unknown_option_is_named", "accepted without a word"),
    mutant("AcceptsAnyValue", "wrong_value_is_named", "accepted without a word", settings=ONE_DEVICE),
    mutant("SetsEnvironmentOnOpen", "leaves_the_process_alone",
           "opening it changed os.environ['NULL_LOG_LEVEL'] from nothing to '1'"),
    mutant("SetsThreads", "leaves_torch_alone", "opening it changed torch.get_num_threads()"),
    mutant("SeedsTorch", "leaves_random_state_alone", "opening it changed the random state of torch"),
    mutant("LogsIntoFolder", "leaves_no_files", "null.log in the current folder"),
    mutant("LeavesThread", "leaves_no_threads", "opening it changed the thread 'null-worker' (not daemon)"),
    mutant("WatchesSinceProbe", "leaves_no_threads", "a shallow probe changed the thread 'null-watch'"),
    mutant("ThreadForEachOpen", "open_does_not_leak", "left 20 more threads"),
    mutant("LeaksDescriptor", "open_does_not_leak", "left 20 more file descriptors"),
]  # fmt: skip
# These fail the same checks with other words; the checks need no process of their own for them.
IN_PROCESS = [
    ("backend", "LongSummary", "declares_what_it_is", "in 2 line(s)"),
    ("backend", "OddPrecision", "declares_what_it_is", "info.precisions holds ['float16']"),
    ("backend", "NoPrecision", "declares_what_it_is", "info.precisions is ()"),
    ("backend", "OptionWithoutHelp", "declares_what_it_is", "a line of help"),
    ("serializer", "SuffixWithoutDot", "declares_what_it_is", "begins with a dot"),
    ("partitioner", "UnknownObjective", "declares_what_it_is", "info.objectives holds ['speed']"),
    ("transport", "DeviceNotType", "declares_what_it_is", "info.devices holds ['cuda:0']"),
    ("backend", "RawOnUnknownOption", "unknown_option_is_named", "raised TypeError"),
    ("backend", "UnnamedOption", "unknown_option_is_named", "does not name it"),
    ("backend", "OptionWithoutRemedy", "unknown_option_is_named", "neither cause nor remedy"),
    ("backend", "BlamesTheMachine", "unknown_option_is_named", "ProviderUnavailable, not ConfigError"),
    ("backend", "RawOnWrongValue", "wrong_value_is_named", "raised TypeError"),
]  # fmt: skip
PROBES = [
    ("ReadyWithoutDevice", "names no device"),
    ("SameDeviceTwice", "with the same id: ['0', '0']"),
    ("IdWithSpace", "'acme:card 0' must be a target"),
    ("NamelessDevice", "without a name for people"),
    ("OddTorchDevice", "'NPU 0', which is no device of PyTorch"),
    ("NoMemory", "with 0 bytes of memory"),
    ("ObjectsInProperties", "not JSON-serializable"),
    ("OneWordReason", "as the reason 'no'"),
]
EVERYTHING = [
    ("ChangesTheProcess", "leaves_the_process_alone", [
        "loading it changed the handler of SIGTERM from <Handlers.SIG_DFL: 0> to <function",
        "a shallow probe changed os.environ['PATH'] from",
        "opening it changed the current folder from",
        "opening it changed the umask from",
        "opening it changed warnings.filters, rule",
        "opening it changed logging's root level from WARNING to DEBUG",
        "opening it changed logging's root handler <StreamHandler",
        "opening it changed sys.path from",
        "opening it changed sys.excepthook from sys.excepthook to mutants_every",
    ]),
    ("ChangesTorch", "leaves_torch_alone", [
        "opening it changed torch.get_default_dtype() from torch.float32 to torch.float16",
        "opening it changed torch.is_grad_enabled() from True to False",
        "opening it changed torch.set_flush_denormal from False to True",
        "opening it changed torch.backends.cudnn.benchmark from False to True",
    ]),
    ("SeedsEverything", "leaves_random_state_alone", [
        "opening it changed the random state of Python",
        "opening it changed the random state of numpy",
    ]),
]  # fmt: skip
CHECKS = [method.removeprefix("test_") for method in dir(EveryKind) if method.startswith("test_")]


@pytest.fixture
def mutants(monkeypatch):
    """The module of mutants, in this process."""
    monkeypatch.syspath_prepend(str(MODULES))
    __import__(MODULE)
    return sys.modules[MODULE]


@pytest.mark.parametrize("mutant", asked_for(MUTANTS), ids=str)
def test_the_kit_kills_the_mutant(mutant):
    result = judged("backend", mutant)
    assert result.outcome == "failed", f"{mutant.name} survives: {result}"
    assert mutant.says in result.reason


@pytest.mark.parametrize(("kind", "name", "check", "says"), IN_PROCESS)
def test_the_check_names_each_flaw(mutants, kind, name, check, says):
    registry = Registry(path=[])
    registry.add(kind, "acme", getattr(mutants, name))
    settings = Settings(config={"devices": 1} if check == "wrong_value_is_named" else {})
    subject = Subject(kind, "acme", settings, registry=registry)
    with pytest.raises(CheckFailed) as caught:
        getattr(EveryKind(), f"test_{check}")(subject, {})
    assert says in str(caught.value)


@pytest.mark.parametrize(("name", "says"), PROBES)
def test_the_check_names_each_flaw_of_a_probe(mutants, name, says):
    answer = {"raised": "", **plain(getattr(mutants, name).probe(False))}
    with pytest.raises(CheckFailed) as caught:
        judge(Subject("backend", "acme"), answer, "a probe")
    assert says in str(caught.value)


def test_only_backends_have_devices(mutants):
    answer = {"raised": "", **plain(mutants.correct.probe(False))}
    judge(Subject("backend", "acme"), answer, "a probe")
    with pytest.raises(CheckFailed, match="which only backends have"):
        judge(Subject("partitioner", "acme"), answer, "a probe")


@pytest.mark.parametrize(("name", "check", "said"), EVERYTHING)
def test_everything_that_was_changed_is_named(name, check, said):
    reason = run_checks("backend:all", f"{MODULE}:{name}", [check])[check].reason
    for sentence in said:
        assert sentence in reason, reason


def test_a_correct_provider_passes_every_check():
    settings = ONE_DEVICE.format("correct")
    ended = run_checks("backend:correct", f"{MODULE}:correct", CHECKS, settings=settings)
    assert {n: r.reason for n, r in ended.items() if r.outcome != "passed"} == {
        "open_says_that_it_is_unavailable": "it is available here, and on a machine that lacks everything too",
    }  # fmt: skip


def test_a_correct_provider_without_its_hardware_passes_what_needs_none():
    ended = run_checks("backend:absent", f"{MODULE}:absent", CHECKS)
    skipped = {name: r.reason for name, r in ended.items() if r.outcome == "skipped"}
    assert {r.outcome for r in ended.values()} == {"passed", "skipped"}
    assert skipped.keys() == {"opens_twice", "unknown_option_is_named", "wrong_value_is_named"}
    assert "the driver libnull.so.1 is not installed" in skipped["opens_twice"]


def test_every_check_of_the_mix_ins_has_a_mutant():
    assert {m.kills for m in MUTANTS} == set(CHECKS)
