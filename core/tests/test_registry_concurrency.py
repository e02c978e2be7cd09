"""Threads and forks: one import, nobody blocked who asks for something else, no dead-lock.

Each test runs in a process of its own, so that a dead-lock is a failure and not the end of the
test run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.dists import PLUGIN, FakeSite

# The module of a provider that says it has begun and then waits to be released.
GATED = (
    """
import acme_gate
acme_gate.begun.set()
assert acme_gate.go.wait(30)
"""
    + PLUGIN
)
GATE = """
import threading
begun, go, met = threading.Event(), threading.Event(), threading.Event()
registry, both = None, threading.Barrier(2)
def meet():
    # Two threads are here at once; who comes later passes.
    if not met.is_set():
        both.wait(20)
        met.set()
"""
SETUP = """
import os, sys, threading, time
import hardpoint, acme_gate
registry = acme_gate.registry = hardpoint.Registry(path=[sys.argv[1]])
failures = []
def run(*calls):
    def guarded(call):
        try:
            call()
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=guarded, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads
def join(threads):
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "dead-lock"
def load(name):
    return lambda: registry.load("backend", name)
"""


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    site = FakeSite(tmp_path / "site")
    (site.root / "acme_gate.py").write_text(GATE)
    return site


def succeed(site: FakeSite, code: str) -> str:
    ran = site.run("-c", SETUP + code, str(site.root))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_threads_that_load_one_provider_import_it_once(site: FakeSite) -> None:
    site.add_backend("npu", GATED)
    code = """
told = []
registry.observe(lambda event: told.append(event.kind))
threads = run(*[load("npu")] * 8)
acme_gate.begun.wait(20)
time.sleep(0.2)
acme_gate.go.set()
join(threads)
assert not failures, failures
assert told.count("loaded") == 1, told
"""
    succeed(site, code)
    assert site.imports_of("acme_npu") == 1


def test_threads_that_load_one_broken_provider_import_it_once_and_all_hear_why(
    site: FakeSite,
) -> None:
    site.add_backend("npu", GATED + "\nraise OSError('no firmware')\n")
    code = """
threads = run(*[load("npu")] * 4)
acme_gate.begun.wait(20)
time.sleep(0.2)
acme_gate.go.set()
join(threads)
assert len(failures) == 4
assert all("OSError: no firmware" in str(failure) for failure in failures), failures
"""
    succeed(site, code)
    assert site.imports_of("acme_npu") == 1


def test_a_slow_import_blocks_nobody_who_asks_for_something_else(site: FakeSite) -> None:
    site.add_backend("slow", GATED)
    site.add_backend("good")
    code = """
threads = run(load("slow"))
acme_gate.begun.wait(20)
assert [record.name for record in registry.records()] == ["good", "slow"]
registry.open("backend", "good")
registry.reload()
assert registry.record("backend", "slow").state == "discovered"
acme_gate.go.set()
join(threads)
assert not failures, failures
assert registry.record("backend", "slow").state == "loaded"
"""
    succeed(site, code)


def test_providers_that_load_each_other_do_not_dead_lock(site: FakeSite) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        nested = f"""
import acme_gate
acme_gate.meet()
acme_gate.registry.load("backend", "{other}")
"""
        site.add_backend(name, nested + PLUGIN)
    code = """
join(run(load("a"), load("b")))
assert failures
assert any("asked for while it is being loaded" in str(failure) for failure in failures), failures
"""
    succeed(site, code)


def test_infos_that_wait_for_each_others_loads_do_not_dead_lock(site: FakeSite) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        nested = f"""
    import acme_gate
    acme_gate.meet()
    acme_gate.registry.load("backend", "{other}")
    return BackendInfo("""
        site.add_backend(name, PLUGIN.replace("\n    return BackendInfo(", nested))
    code = """
join(run(load("a"), load("b")))
assert any("asked for while it is being loaded" in str(failure) for failure in failures), failures
"""
    succeed(site, code)


def test_waiting_while_holding_an_import_lock_does_not_dead_lock(site: FakeSite) -> None:
    # Thread 1 imports an application, which loads the provider; thread 2 loads the provider, whose
    # module imports the application.
    (site.root / "acme_app.py").write_text(
        "import acme_gate\nacme_gate.meet()\nrecord = acme_gate.registry.load('backend', 'npu')\n"
    )
    site.add_backend("npu", "import acme_gate\nacme_gate.meet()\nimport acme_app\n" + PLUGIN)
    code = """
def app():
    import acme_app
join(run(app, load("npu")))
print(registry.load("backend", "npu").state)
"""
    assert succeed(site, code) == "loaded\n"


def test_an_import_inside_which_another_threads_load_is_awaited_gets_the_provider(
    site: FakeSite,
) -> None:
    site.add_backend("npu", GATED)
    (site.root / "acme_app.py").write_text(
        "import acme_gate\nrecord = acme_gate.registry.load('backend', 'npu')\n"
    )
    code = """
def app():
    acme_gate.begun.wait(20)
    import acme_app
    assert acme_app.record.state == "loaded"
threads = run(load("npu"), app)
acme_gate.begun.wait(20)
time.sleep(0.2)
acme_gate.go.set()
join(threads)
assert not failures, failures
"""
    succeed(site, code)
    assert site.imports_of("acme_npu") == 1


def test_a_provider_removed_while_it_loads_is_not_found_afterwards(site: FakeSite) -> None:
    site.add_backend("npu", GATED)
    code = """
threads = run(load("npu"))
acme_gate.begun.wait(20)
registry.remove("backend", "npu")
acme_gate.go.set()
join(threads)
assert type(failures[0]).__name__ == "ProviderNotFound", failures
assert registry.records() == ()
"""
    succeed(site, code)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

IN_CHILD = """
def in_child(check):
    # A child that dead-locks is killed by its alarm, and its exit status says so.
    import signal, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        code = 1
        try:
            check()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed or hung"
"""


@needs_fork
def test_a_child_uses_and_loads_providers(site: FakeSite) -> None:
    site.add_backend("before")
    site.add_backend("after")
    code = (
        IN_CHILD
        + """
registry.load("backend", "before")
def check():
    registry.open("backend", "before")
    registry.open("backend", "after")
in_child(check)
assert registry.record("backend", "after").state == "discovered"
registry.open("backend", "after")
"""
    )
    succeed(site, code)


@needs_fork
def test_a_fork_waits_for_another_threads_load_and_the_child_uses_it(site: FakeSite) -> None:
    site.add_backend("npu", GATED)
    code = (
        IN_CHILD
        + """
threads = run(load("npu"))
acme_gate.begun.wait(20)
threading.Timer(0.3, acme_gate.go.set).start()
in_child(lambda: registry.open("backend", "npu"))
join(threads)
assert not failures, failures
"""
    )
    succeed(site, code)


@needs_fork
def test_a_load_that_outlasts_the_forks_patience_is_given_up_in_the_child_alone(
    site: FakeSite,
) -> None:
    site.add_backend("stuck", GATED)
    site.add_backend("good")
    code = (
        IN_CHILD
        + """
from hardpoint.registry import flights
flights.FORK_PATIENCE_S = 0.05
threads = run(load("stuck"))
acme_gate.begun.wait(20)
def check():
    registry.open("backend", "good")
    try:
        registry.open("backend", "stuck")
    except hardpoint.ProviderFailed as error:
        assert error.cause == "another thread was importing it when this process was forked"
        assert "before forking" in error.remedy
    else:
        raise AssertionError("it cannot have been loaded")
in_child(check)
acme_gate.go.set()
join(threads)
assert not failures, failures
registry.open("backend", "stuck")
"""
    )
    succeed(site, code)


@needs_fork
def test_a_module_that_forks_while_it_is_loaded_does_not_wait_for_itself(site: FakeSite) -> None:
    forking = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
"""
    site.add_backend("npu", forking + PLUGIN)
    succeed(site, 'registry.open("backend", "npu")\n')
    assert site.imports_of("acme_npu") == 1


@needs_fork
def test_a_lock_held_by_another_thread_is_free_in_the_child(site: FakeSite) -> None:
    site.add_backend("good")
    code = (
        IN_CHILD
        + """
stop = threading.Event()
def busy():
    while not stop.is_set():
        registry.reload()
threads = run(*[busy] * 3)
for _ in range(10):
    in_child(lambda: registry.open("backend", "good"))
stop.set()
join(threads)
assert not failures, failures
"""
    )
    succeed(site, code)
