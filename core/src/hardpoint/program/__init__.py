"""Programs: a model captured as a flat, functional ``torch.export.ExportedProgram``.

``structure`` describes nested inputs and outputs without any of the model's code, ``signature``
says what a call must look like, ``capture`` turns a module into a program and ``sources`` finds
the module.
"""
