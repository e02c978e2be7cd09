"""All candidates compared on one model: what ``hardpoint bench`` and ``hp.bench`` give.

``row`` is a line of the table, ``benchmark`` the table with what it was made on; ``request`` is
what is asked, checked; ``bench`` finds and builds, ``heat`` times; ``front`` compares rows with
each other; ``columns`` says them in words, ``csv_file`` and ``page`` write them. All but
``bench``, ``heat`` and ``request`` import no torch.
"""
