"""Packages: one PT2 archive with plan, artifacts, weights and program.

``archive`` reads a zip strictly, ``writer`` writes one atomically, ``pt2`` holds programs and
tensors in it, ``integrity`` the hashes, ``save`` and ``load`` tie them to a compiled model.
"""
