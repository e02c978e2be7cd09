"""Measuring: candidates compiled and run in child processes, timed in turn. Light to import.

::

    from hardpoint.measuring.session import Session, judge
    from hardpoint.measuring.running import Race

    with Session(program, registry, threads=2, fresh=True) as session:
        found = session.survey(targets=None, precisions=None)    # Survey
        found.candidates       # Candidate: target x precision x variant; .label, .key, .to_json()
        found.partial          # target -> Failure "covers 37 of 40 operations: ..."
        found.left_out         # (backend or target, Failure)
        built = session.build(candidate, on_stage=print)         # Built | Failure; .errors, .bytes
        judge(built.errors, max_error)                           # Failure("wrong") | None
        runner = session.start(built)                            # Runner | Failure
        runner.begun           # Start: cold, import, load and first-call seconds, memory, errors
        race = Race([runner, ...], session.start(None))          # None: eager PyTorch, as captured
        for done in race.run(rounds=15, seconds=0.06):           # runners stand still in between
            race.timing(runner)                                  # Timing: p50 p95 p99 best ratio...
            runner.failure                                       # why it takes no further part
        race.noisy             # eager's own rounds differ too much for conclusions
        session.use(runner, 8) # at another batch: its errors are runner.errors, its rounds anew
        session.machine()      # what the figures come from
        session.measured(candidate, timing)                      # tell observers: event "measured"
        session.failed(candidate, failure)                       # the same, with data["failure"]

All seconds are seconds, all sizes bytes, ``throughput`` samples a second. ``Race(callers=4)`` calls
from four threads at the same time. A candidate that crashes, hangs, takes too much memory or raises
is a :class:`~hardpoint.measuring.results.Failure` with kind, stage and reason; nothing else stops.

Modules: ``candidate``, ``results`` and ``limits`` are data; ``survey`` finds candidates; ``child``
holds a process from outside, ``serving`` is its other end; ``surveyor``, ``builder`` and ``runner``
are the three processes, ``building`` and ``running`` their parents' sides; ``workload`` is what
they read; ``figures`` makes figures of rounds.
"""
