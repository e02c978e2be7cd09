"""Pages that need no network and no server: a plan, a report of the conformance kit.

``markup`` escapes; ``document`` puts body, style and script into one file, so that it can be
mailed. ``base.css`` is what all pages look like.
"""
