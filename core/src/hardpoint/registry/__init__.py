"""Which providers are installed, which may be used, and how one is loaded without harm to others.

Reading order: discovery (what metadata says), policy (what is permitted), slots (both together),
loading (one light import), mounts (dispatch through pluggy), registry (the public face).
"""
