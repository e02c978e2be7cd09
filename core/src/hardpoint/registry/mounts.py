"""Dispatch through pluggy: to one provider at a time, with the embedder's wrappers around it.

pluggy is made for broadcasts: one raising plugin would stop the call for all. Here each call goes
to a subset of one provider, and each observer is called by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pluggy

from hardpoint.errors import did_you_mean
from hardpoint.hookspecs import PROJECT, SPECS, hookimpl
from hardpoint.interfaces.kinds import Kind
from hardpoint.registry.contracts import STAGES, hook_name

Hook = Callable[..., Any]
_SPEC_FUNCTIONS: Mapping[str, Hook] = {
    name: function
    for spec in SPECS
    for name, function in vars(spec).items()
    if name.startswith("hardpoint_")
}


class HookProblem(Exception):  # noqa: N818  # an inner signal: callers make their own error of it
    """A plugin's hooks do not fit the specs. The message is the cause, on one line."""


class _Mount:
    """What pluggy sees of a plugin: the hooks of one role, as attributes.

    A stand-in, because pluggy registers an object once, while one module may hold the hooks of
    several providers.
    """


class Mounts:
    """The mounted providers, wrappers and observers of one registry.

    Not thread-safe: its owner calls all but the returned callers under a lock.
    """

    def __init__(self) -> None:
        self._pm = pluggy.PluginManager(PROJECT)
        for spec in SPECS:
            self._pm.add_hookspecs(spec)
        # Providers and observers: whoever is not the one called is left out. Wrappers never are.
        self._called: dict[str, _Mount] = {}
        self._callers: dict[tuple[str, str], Hook] = {}

    def mount_provider(self, key: str, kind: Kind, plugin: object) -> None:
        """Mount ``plugin`` as the provider ``key``.

        :raises HookProblem: hooks are missing, misspelt, unmarked or of the wrong signature.
        """
        if inspect.isclass(plugin):
            raise HookProblem(f"{plugin.__name__} is a class; give an instance of it, or a module")
        hooks = self._hooks_of(plugin)
        wanted = [hook_name(kind, stage) for stage in STAGES]
        missing = [name for name in wanted if name not in hooks]
        if missing:
            raise HookProblem(_about_missing(missing, plugin, hooks))
        self._register(key, {name: hooks[name] for name in wanted}, wrappers=False)

    def mount_wrappers(self, key: str, plugin: object) -> None:
        """Mount every wrapper in ``plugin``.

        :raises HookProblem: it has none, or a hook that is no wrapper and would answer calls.
        """
        hooks = self._hooks_of(plugin)
        if not hooks:
            raise HookProblem("it has no function marked with @hardpoint.hookimpl(wrapper=True)")
        self._register(key, hooks, wrappers=True)

    def mount_observer(self, key: str, observer: object) -> None:
        """Mount a ``hardpoint_event`` hook, or any callable that takes an event.

        :raises HookProblem: it is neither.
        """
        hook = self._hooks_of(observer).get("hardpoint_event")
        if hook is None:
            if not callable(observer):
                raise HookProblem("it is neither callable nor has a hook 'hardpoint_event'")
            hook = _event_hook(observer)
        self._register(key, {"hardpoint_event": hook}, wrappers=False)

    def unmount(self, key: str) -> None:
        """Forget what was mounted as ``key``; nothing happens if nothing was."""
        self._called.pop(key, None)
        self._callers.clear()
        if self._pm.has_plugin(key):
            self._pm.unregister(name=key)

    def caller(self, key: str, hook: str) -> Hook:
        """A function that calls ``hook`` of ``key`` alone, inside the wrappers."""
        found = self._callers.get((key, hook))
        if found is None:
            others = [mount for name, mount in self._called.items() if name != key]
            found = self._pm.subset_hook_caller(hook, remove_plugins=others)
            self._callers[key, hook] = found
        return found

    def _hooks_of(self, plugin: object) -> dict[str, Hook]:
        """Marked functions by the hook that they implement."""
        hooks: dict[str, Hook] = {}
        for attribute in dir(plugin):
            options = self._pm.parse_hookimpl_opts(plugin, attribute)
            if options is not None:
                hooks[options.get("specname") or attribute] = getattr(plugin, attribute)
        for name in hooks:
            if name not in _SPEC_FUNCTIONS:
                hint = did_you_mean(name, _SPEC_FUNCTIONS)
                raise HookProblem(f"{name!r} is not a hook; {hint}")
        return hooks

    def _register(self, key: str, hooks: Mapping[str, Hook], *, wrappers: bool) -> None:
        mount = _Mount()
        for name, hook in hooks.items():
            if _is_wrapper(hook) != wrappers:
                must = (
                    "must be a wrapper: mark it" if wrappers else "must not be a wrapper: mark it"
                )
                how = "@hardpoint.hookimpl(wrapper=True)" if wrappers else "@hardpoint.hookimpl"
                raise HookProblem(f"{name} {must} {how}")
            setattr(mount, name, hook)
        try:
            self._pm.register(mount, key)
        except pluggy.PluginValidationError as error:
            # pluggy 1.6 leaves half of it registered.
            self._pm.unregister(name=key)
            raise HookProblem(_about_signatures(str(error), hooks)) from error
        if not wrappers:
            self._called[key] = mount
        self._callers.clear()


def _is_wrapper(hook: Hook) -> bool:
    options: Mapping[str, object] = getattr(hook, f"{PROJECT}_impl")
    return bool(options.get("wrapper") or options.get("hookwrapper"))


def _event_hook(observer: Callable[..., object]) -> Hook:
    @hookimpl
    def hardpoint_event(event: object) -> None:
        observer(event)

    return hardpoint_event


def _about_missing(missing: list[str], plugin: object, hooks: Mapping[str, Hook]) -> str:
    unmarked = [name for name in missing if hasattr(plugin, name)]
    if unmarked:
        return f"{', '.join(unmarked)}: defined, but not marked with @hardpoint.hookimpl"
    have = f"; it has {', '.join(sorted(hooks))}" if hooks else ""
    return f"it does not implement {', '.join(missing)}{have}"


def _about_signatures(problem: str, hooks: Mapping[str, Hook]) -> str:
    """The words of pluggy, which show the hookimpl's definition, and the spec's beside them."""
    specs = [
        f"hookspec definition: {name}{_signature(name)}" for name in hooks if repr(name) in problem
    ]
    return "; ".join([*(line.strip() for line in problem.splitlines()), *specs])


def _signature(name: str) -> str:
    signature = inspect.signature(_SPEC_FUNCTIONS[name])
    arguments = [value for key, value in signature.parameters.items() if key != "self"]
    # Annotations are strings in our source; their quotes only make it harder to read.
    return str(signature.replace(parameters=arguments)).replace("'", "")
