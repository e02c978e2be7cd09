"""What the checks of every kind run in processes of their own.

Each script has ``main(kind, name, config, ...)``, whose arguments are text and whose answer is
JSON. ``light`` and ``state`` import nothing but hardpoint, since they look at what comes on top.
"""
