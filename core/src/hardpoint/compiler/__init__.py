"""From a plan to a compiled model: ``wire`` the calls, ``segment`` compiles, ``verify`` compares
with eager PyTorch, ``compile`` ties them together, ``isolate`` does it in a child process.
"""
