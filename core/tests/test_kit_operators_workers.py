"""The kit's operator checks with real worker processes and real installed backends."""

import pytest
import torch

from fakes.dists import FakeSite
from hardpoint import Registry
from hardpoint.errors import ConfigError
from hardpoint.testing.operators.attempt import Result
from hardpoint.testing.operators.cache import Cache, cache_of
from hardpoint.testing.operators.database import Case, Database
from hardpoint.testing.operators.pool import Pool, WorkerError
from hardpoint.testing.operators.run import operators_of
from hardpoint.testing.operators.worker import Job
from hardpoint.testing.settings import Settings
from hardpoint.testing.subject import Effort, Subject

# Runs a segment's graph in PyTorch; a crash on exp, an endless loop on sin, a hang on cos;
# tan leaves behind what makes PyTorch's exporter crash afterwards.
BACKEND = """
import os, time
from hardpoint import (
    Artifact, Backend, BackendInfo, CompileError, Device, Executable, Probe, Support, hookimpl
)
from hardpoint.planning import compute_nodes

def poison():
    import torch.export
    torch.export.export = lambda *args, **kwargs: os.abort()

class Run(Executable):
    def __init__(self, program): self.module = program.graph_module
    def __call__(self, *inputs):
        print("noise on stdout, which must not disturb the kit", flush=True)
        for node in self.module.graph.nodes:
            if "aten.exp." in str(node.target): os.abort()
            if "aten.tan." in str(node.target): poison()
            if "aten.cos." in str(node.target): time.sleep(1000)
            while "aten.sin." in str(node.target): pass
        return tuple(self.module.forward(*inputs))

class Shaky(Backend):
    def __init__(self, config): self.config, self.programs = config, PROGRAMS
    def devices(self): return [Device("0", "shaky")]
    def support(self, program, device):
        names = [n.name for n in compute_nodes(program)]
        if not self.config.get("works"):
            return Support(frozenset(), dict.fromkeys(names, "it was opened without works=True"))
        return Support(frozenset(names))
    def compile(self, program, device, options):
        self.programs.append(program)
        return Artifact("shaky/1", metadata={"index": len(self.programs) - 1})
    def load(self, artifact, device): return Run(self.programs[artifact.metadata["index"]])

PROGRAMS = []

@hookimpl
def hardpoint_backend_info():
    return BackendInfo(requires_api=(1, 0), summary="shaky", precisions=("fp32",))

@hookimpl
def hardpoint_backend_probe(request): return Probe.ready(Device("0", "shaky"))

@hookimpl
def hardpoint_backend_open(config): return Shaky(config)
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    made = FakeSite(tmp_path / "site")
    made.add_backend("shaky", BACKEND)
    monkeypatch.syspath_prepend(str(made.root))
    monkeypatch.setenv("PYTHONPATH", str(made.root))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return made


def subject(*operators, cache="", seconds=60.0, expected=None):
    settings = Settings(config={"works": True}, expected_failures=expected or {})
    effort = Effort("quick", 1, str(cache), operators, seconds)
    return Subject("backend", "shaky", settings, effort, Registry())


def states(tally):
    return {str(r.case): r.state for r in tally.results}


def test_a_crash_or_a_hang_costs_its_case_and_the_rest_is_run(site):
    """Whether it hangs in waiting or in computing. Nothing works here without the configuration."""
    seen = []
    tested = subject(*(f"{op}/float32" for op in ("abs", "cos", "exp", "neg", "sin")), seconds=3.0)
    tested.progress = lambda done, total, what: seen.append((done, total, what))
    tally = operators_of(tested)
    assert states(tally) == {
        "abs/float32": "right", "cos/float32": "hung", "exp/float32": "crashed",
        "neg/float32": "right", "sin/float32": "hung",
    }  # fmt: skip
    reasons = {r.op: r.reason for r in tally.results}
    assert reasons["exp"].startswith("in call: killed by SIGABRT")
    assert reasons["cos"] == "in call: no answer within 9 s"
    # A machine with other work may reach the limit on the wall first.
    assert reasons["sin"] in ("in call: more than 3 s of processor time", reasons["cos"])
    assert sorted(seen) == [(i + 1, 5, str(r.case)) for i, r in enumerate(tally.results)]
    assert operators_of(tested) is tally


def test_a_crash_afterwards_is_laid_to_the_case_that_caused_it(site):
    tally = operators_of(subject("abs/float32", "tan/float32", "trunc/float32"))
    assert states(tally) == {
        "abs/float32": "right",
        "tan/float32": "crashed",
        "trunc/float32": "right",
    }
    assert tally.results[1].reason.startswith("after its call: killed by SIGABRT")


def test_an_expected_failure_of_an_unknown_operator_is_refused(site):
    with pytest.raises(ConfigError, match="has no operator 'abss'"):
        operators_of(subject("abs", expected={"operator:abss": "bug 1"}))


def test_a_backend_that_cannot_be_opened_says_so(site):
    job = Job("nobody", "fp32", {}, {}, 60.0)
    found = []
    Pool(job, 1, {}, found.append).run(lambda cases: [Case("abs", "", "float32")])
    assert found[0].state == "raised"
    assert "nobody" in found[0].reason


def test_workers_that_do_not_start_are_an_error(site, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(site.root))
    (site.root / "expecttest.py").write_text("raise ImportError('no such thing here')")
    with pytest.raises(WorkerError) as caught:
        operators_of(subject("abs"))
    assert "PyTorch's operator database cannot be imported" in str(caught.value)
    assert 'pip install "hardpoint[testing]"' in str(caught.value)


def test_results_are_remembered_for_the_same_sample_and_code(site, tmp_path):
    folder = tmp_path / "cache"
    first = operators_of(subject("abs", cache=folder))
    assert first.notes == ()
    again = operators_of(subject("abs", "neg/float32", cache=folder))
    known = len(first.results)
    assert again.notes == (f"cache: {known} of {known + 1} results are an earlier run's",)
    assert [r for r in again.results if r.op == "abs"] == list(first.results)


def test_a_new_version_of_the_backend_is_run_anew(site, tmp_path):
    before = cache_of(subject(cache=tmp_path))
    (site.root / "acme_shaky-1.0.dist-info" / "RECORD").write_text("acme_shaky.py,sha256=other,\n")
    after = cache_of(subject(cache=tmp_path))
    assert before.path != after.path


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[:-20], "JSONDecodeError"),
        (lambda text: text.replace('"wrong"', '"right"'), "its hash is not that of its content"),
        (lambda text: text.replace('"acme"', '"other"'), "it holds the results of something else"),
        (lambda text: "[]", "TypeError"),
    ],
)
def test_a_damaged_cache_is_not_trusted_and_the_report_says_so(tmp_path, damage, words):
    cache = Cache(tmp_path / "operators-acme.json", {"provider": "acme"})
    kept = Result("abs", "", "float32", "wrong", "words", "hash")
    cache.write([kept, Result("exp", "", "float32", "crashed", "in call", "hash")])
    assert cache.read() == ({kept.case: kept}, "")
    cache.path.write_text(damage(cache.path.read_text()))
    found, note = cache.read()
    assert found == {}
    assert note.startswith("operators-acme.json is not used: ")
    assert words in note


def test_what_is_installed_in_place_is_not_remembered(site, tmp_path):
    info = site.root / "acme_shaky-1.0.dist-info"
    (info / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')
    cache = cache_of(subject(cache=tmp_path / "cache"))
    cache.write([Result("abs", "", "float32", "right", "", "hash")])
    assert cache.read() == ({}, "acme-shaky is installed in place: its code may change any time")
    assert not (tmp_path / "cache").exists()


def test_the_database_gives_the_same_telling_sample_at_any_time():
    database = Database()
    assert not torch.backends.flags_frozen(), "a provider may set its flags"
    cases = database.cases()
    assert len(cases) == len(set(cases)) > 2000
    assert not any(c.op.startswith(("empty", "rand")) or "sparse" in c.op for c in cases)
    one, other = (database.sample(Case("add", "", "float32")) for _ in range(2))
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors, strict=True))
    assert all(t.numel() for t in one.tensors)
    assert one.tensors[0].dim() > 0
