"""The page that draws a plan: ``flow`` says what crosses, ``layout`` places boxes and lines,
``picture`` draws them, ``sections`` writes everything else.
"""
