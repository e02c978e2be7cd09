"""From a program to a plan: which node runs where, cut into segments.

``graph`` says what can be assigned, ``segments`` cuts, ``extract`` builds each segment as a program
of its own, ``validate`` checks what providers answered, ``planner`` ties them together, ``plan`` is
the result, ``explain`` and ``html`` show it. :func:`compute_nodes` is public: backends and
partitioners answer about exactly these nodes.
"""

from hardpoint.planning.graph import compute_nodes, is_view

__all__ = ["compute_nodes", "is_view"]
