"""Running compiled segments: ``check`` the call, ``schedule`` what happens, ``model`` does it."""
