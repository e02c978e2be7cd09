"""Where the bytes of tensors lie, and moving them: what serializers are made with.

A serializer that says where in a file each tensor's elements lie (``TensorInfo.offset``) gets the
rest from here: mapping, private copies, filling a module, slices, remote files.

- ``source``: the bytes of a file, here or (``remote``) behind a URL
- ``table``: a reader made of a table of tensors and a source
- ``mapped``: tensors that are views of a file
- ``buffers``, ``gather``: private memory, and filling it from files in several threads
- ``slices``: which bytes an index needs; ``boxes``: the same of tensors that lie in pieces
- ``pickles``: pickles of plain data, read without running anything
- ``atomic``: replacing a file whole, or not at all; ``directory``: the same of directories
- ``refusal``: the errors that all of them raise
"""
