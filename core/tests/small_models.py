"""Small modules, each with one habit of real models that makes cutting a graph hard."""

from __future__ import annotations

from models import Case
from operator_models import CASES as OPERATORS
from state_models import CASES as STATE

CASES: list[Case] = [*STATE, *OPERATORS]
