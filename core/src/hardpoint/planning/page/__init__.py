"""The page that draws a plan: ``flow`` says what crosses, ``layout`` places boxes and lines,
``picture`` draws them, ``sections`` writes everything else, ``markup`` escapes.

``page.html``, ``page.css`` and ``page.js`` are put into one file, so that it can be mailed.
"""
