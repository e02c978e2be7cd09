"""``hardpoint new``: a complete plugin that works and passes the conformance kit, to be changed.

``names`` says what may be called how, ``versions`` what the plugin asks of the core, ``contents``
which files there are, ``templates/`` what stands in them, ``render`` fills them in, ``write`` puts
them on disk: all of them or none.
"""
