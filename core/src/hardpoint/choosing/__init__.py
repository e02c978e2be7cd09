"""Choosing by measurement: what ``hardpoint.compile(program, targets="auto")`` does.

``request`` is what the caller wants and ``budget`` what it may cost; ``trial`` tries candidates one
by one, ``contest`` times them and gives the slow ones up early, ``mixes`` adds what partitioners
make of several targets; ``choose`` ties these together. ``identity`` says what measurements hold
for, ``database`` and ``cache`` keep them, and ``memory`` is both as a choice uses them; ``row`` and
``choice`` are the report.
"""
