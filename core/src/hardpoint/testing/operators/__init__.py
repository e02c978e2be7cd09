"""Op by op: what PyTorch's own operator database holds, through a backend, against eager PyTorch.

One sample per operator and dtype, many a worker process. Only :mod:`.database` knows PyTorch's
database, which is private to it; :mod:`.case` makes a program of a sample; :mod:`.attempt` puts it
through a backend and :mod:`.judge` compares; :mod:`.pool` runs workers and survives their crashes.
"""
