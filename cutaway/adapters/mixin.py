"""What a model can do with adapters: take them on, train them, switch, merge, save and load them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from torch import Tensor, nn

from cutaway.adapters import peft_files
from cutaway.adapters.targets import new_parts
from cutaway.errors import ConfigError, InputError, nearest
from cutaway.nn.forward_inputs import NEEDLESS, accepted, check_accepted
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import Linear
from cutaway.nn.lora import Adapter, AdapterCall, Adapters, AdapterSlot, adapter_call, adapter_call_of
from cutaway.nn.lora_config import LoraConfig
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.published_layer import PublishedPart

if TYPE_CHECKING:
    from cutaway.hub.files import HubOptions

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
DEFAULT = "default"


class Adaptable(NamedModule):
    """A module that takes adapters on, beside the weights that it has."""

    if TYPE_CHECKING:

        def can_generate(self) -> bool: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `forward`; adapters=name, None, or a list with one of these for each row of the batch."""
        if "adapters" in kwargs:
            wanted = kwargs.pop("adapters")
            with self.use_adapter(wanted, _batch(args, kwargs)):
                return self(*args, **kwargs)
        if kwargs:
            known = accepted(type(self).forward, innermost=True)
            if known is not None and not known.issuperset(kwargs):
                kwargs = {k: v for k, v in kwargs.items() if k in known or k not in NEEDLESS}
                self._check_arguments(kwargs)
        found = self._adapters
        if found is None and not self.can_generate():
            return super().__call__(*args, **kwargs)
        if found is not None and not found.merged and adapter_call_of(found.choice) is None:
            with adapter_call(
                AdapterCall(found.choice, (found.choice.active,))
            ):  # another thread may switch it during the pass
                return self(*args, **kwargs)
        past = kwargs.get("past_key_values")
        if isinstance(past, Cache) and not past.empty:
            self.check_cache(past, past.batch)
            return super().__call__(*args, **kwargs)
        out = super().__call__(*args, **kwargs)
        made = past if isinstance(past, Cache) else getattr(out, "past_key_values", None)
        if isinstance(made, Cache):
            made.adapters = self.acting(made.batch)
        return out

    def _check_arguments(self, given: Mapping[str, object]) -> None:
        """ArgumentError for an argument that forward does not take; a hook, or a forward of the model's own, may."""
        if not self._forward_pre_hooks and "forward" not in self.__dict__:
            check_accepted(self, type(self).forward, given)

    def add_adapter(self, config: LoraConfig, adapter_name: str = DEFAULT) -> None:
        """Begin a new adapter, which changes nothing yet; it acts and trains from now on, and nothing else trains.

        Raises:
            ConfigError: a target that this model does not have; the nearest are listed.
        """
        if not isinstance(config, LoraConfig):
            raise ConfigError(f"add_adapter needs a LoraConfig, not {type(config).__name__}.")
        self._take(adapter_name, Adapter(config, new_parts(self, config), trains=True))

    def load_adapter(
        self, name: str | Path, adapter_name: str = DEFAULT, *, is_trainable: bool = False, **how: Unpack[HubOptions]
    ) -> None:
        """Take on an adapter that `save_adapter` or PEFT has written; it acts from now on.

        Args:
            name: a folder, or a repository on the hub. how: revision, token, cache_dir, local_files_only, subfolder.
            is_trainable: whether it goes on to learn.

        Raises:
            HubError: there are no such files.
            CheckpointError: they are damaged, of another kind, or of another model.
        """
        self._check_new(adapter_name)
        config, held = peft_files.read(self, name, **how)
        self._take(adapter_name, Adapter(config, held, trains=is_trainable))

    def save_adapter(self, folder: str | Path, adapter_name: str | None = None) -> None:
        """Write an adapter, by default the one that acts, as adapter_config.json and adapter_model.safetensors."""
        peft_files.write(self, self._adapter(adapter_name), Path(folder))

    def restore_adapter(self, folder: str | Path, adapter_name: str | None = None) -> None:
        """Copy the numbers of a saved adapter into one that the model has, whose parameters stay the same objects.

        Raises:
            CheckpointError: the file holds other layers, or other shapes.
        """
        peft_files.restore(self, self._adapter(adapter_name), folder)

    @property
    def active_adapter(self) -> str | None:
        """The adapter that acts where a call does not say."""
        found = self._adapters
        return None if found is None else found.choice.active

    @property
    def adapter_names(self) -> list[str]:
        """The adapters that this model has."""
        found = self._adapters
        return [] if found is None else list(found.held)

    def set_adapter(self, adapter_name: str | None) -> None:
        """Let this adapter act, and train if it is one that trains; None for the base alone."""
        found = self._need(adapter_name)
        found.choice.active = adapter_name
        for name, adapter in found.held.items():
            adapter.requires_grad_(name == adapter_name and adapter.trains)

    @contextmanager
    def use_adapter(self, adapters: str | Sequence[str | None] | None, batch: int | None = None) -> Iterator[None]:
        """Inside, calls of this model use `adapters`: one for all, or one for each of `batch` rows.

        Only calls from this thread or asyncio task do, and from tasks that are made inside (`asyncio.to_thread` too).

        Raises:
            ConfigError: an adapter that the model does not have.
            InputError: as many adapters as the batch has rows are needed.
        """
        one = adapters is None or isinstance(adapters, str)
        names: tuple[str | None, ...] = (adapters,) if one else tuple(adapters or ())  # type: ignore[assignment]
        for name in names:
            self._need(name)
        if not one and len(set(names)) != 1 and batch is None:
            raise InputError("different adapters for rows: give them to the call itself, as adapters=[...].")
        if not one and batch is not None and len(names) != batch:
            raise InputError(f"adapters has {len(names)} names, but the batch has {batch} rows; give one for each.")
        found = self._adapters
        with adapter_call(None if found is None else AdapterCall(found.choice, names)):
            yield

    def acting(self, batch: int) -> tuple[str | None, ...]:
        """The adapter that acts on each of `batch` texts in a call from here and now; None for the base alone."""
        base = getattr(self, "base", None)
        found = self._adapters or (base._adapters if isinstance(base, Adaptable) else None)
        if found is None:
            return (None,) * batch
        turn = adapter_call_of(found.choice)
        if found.merged or turn is None:
            return (found.merged_name if found.merged else found.choice.active,) * batch
        each, rest = divmod(batch, len(turn.names))
        if len(set(turn.names)) == 1:
            return turn.names[:1] * batch
        if rest:
            raise InputError(f"{len(turn.names)} texts have adapters of their own, but {batch} are run at once.")
        return tuple(name for name in turn.names for _ in range(each))

    def chosen(self, batch: int) -> tuple[str | None, ...] | None:
        """`acting`, for a call of many passes that is to stay with it; None where there is nothing to choose."""
        found = self._adapters
        return None if found is None or found.merged else self.acting(batch)

    def check_cache(self, past: Cache, batch: int) -> None:
        """InputError where `batch` texts that go on from `past` have not the adapter under which it was filled."""
        if past.adapters is None:
            return
        before = past.adapters * (batch if past.batch == 1 else 1)
        for text, (old, new) in enumerate(zip(before, self.acting(batch), strict=True)):
            if old != new:
                raise InputError(
                    f"past_key_values was filled under {_named(old)}, and text {text} would go on under {_named(new)}; "
                    "keys and values belong to the adapter that made them. Take the same one, or leave the cache out."
                )

    def remove_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; after the last one the base trains as it did before the first."""
        found = self._need(adapter_name)
        adapter = found.held.pop(adapter_name)
        if found.choice.active == adapter_name:
            found.choice.active = None
        for path in adapter.held:
            site = found.sites[path]
            del site.held[adapter_name]
            if not site.held:
                self._close(found, path)
        if not found.held:
            del self._modules["adapters"]
            for p in found.thawed:
                p.requires_grad_(True)

    def merge_adapter(self, adapter_name: str | None = None) -> None:
        """Put an adapter's change into the weights: then the model runs, and is saved, as one without adapters.

        The base's own weights are kept aside for `unmerge_adapter`.

        Raises:
            ConfigError: one is merged already, or a changed weight is shared with another layer.
        """
        adapter = self._adapter(adapter_name)
        found = self._need(None)
        counts: dict[int, int] = {}
        for module in self.engine.modules():
            for p in module._parameters.values():
                counts[id(p)] = counts.get(id(p), 0) + 1
        for path, held in adapter.held.items():
            layer = self.get_submodule(path)
            shared = [name for name, p in layer._parameters.items() if p is not None and counts[id(p)] > 1]
            if "weight" in shared:
                raise ConfigError(f"{path}.weight is tied to another layer, which would change too; do not merge it.")
            part: PublishedPart | None = layer.__dict__.get("part")
            for name, value in held.merged(layer).items():
                if part is not None:  # the published weight, with another part in it
                    owner, at = part.layer, f"{path.rpartition('.')[0]}.{part.slot}"
                    new = part.changed(name, value)
                else:
                    owner, at, new = layer, path, nn.Parameter(value, requires_grad=False)
                old = owner._parameters[name]
                assert old is not None
                found.merged.setdefault((at, name), old)
                owner._parameters[name] = new
        found.merged_name = next(name for name, one in found.held.items() if one is adapter)
        found.choice.active = None

    def unmerge_adapter(self) -> None:
        """Give the base its own weights back, the same bits; the adapter acts again as before."""
        found = self._adapters
        if found is None or not found.merged:
            raise ConfigError("no adapter is merged; there is nothing to take out.")
        for (path, name), old in found.merged.items():
            self.get_submodule(path)._parameters[name] = old
        found.choice.active, found.merged_name = found.merged_name, None
        found.merged = {}

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _adapters(self) -> Adapters | None:
        found = self._modules.get("adapters")
        return found if isinstance(found, Adapters) else None

    def _need(self, name: str | None) -> Adapters:
        """The adapters, if `name` is one of them (or None) and none is merged."""
        found = self._adapters
        if found is not None and found.merged:
            raise ConfigError(f"{found.merged_name!r} is merged into the weights; call unmerge_adapter() first.")
        if name is not None and (found is None or name not in found.held):
            raise ConfigError(f"this model has no adapter {name!r}.{nearest(str(name), self.adapter_names)}")
        return found if found is not None else Adapters([])

    def _adapter(self, name: str | None) -> Adapter:
        name = self.active_adapter if name is None else name
        if name is None:
            raise ConfigError("no adapter acts; name one, after add_adapter or load_adapter.")
        return self._need(name).held[name]

    def _check_new(self, name: str) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"adapter_name is {name!r}; use letters, digits, - and _.")
        if name in self._need(None).held:
            raise ConfigError(f"this model has an adapter {name!r} already; take another name, or remove_adapter.")

    def _take(self, name: str, adapter: Adapter) -> None:
        self._check_new(name)
        found = self._adapters
        for path in adapter.held:
            site = getattr(self.get_submodule(path), "site", None)
            if site is not None and (found is None or site is not found.sites.get(path)):
                raise ConfigError(f"{path} has adapters of the model around this one; add this one there too.")
        if found is None:
            found = Adapters([p for p in self.engine.parameters() if p.requires_grad])
            for p in found.thawed:
                p.requires_grad_(False)
            self._modules["adapters"] = found
        adapter.train(self.training)
        found.held[name] = adapter
        for path, held in adapter.held.items():
            if path not in found.sites:
                self._open(found, path)
            found.sites[path].held[name] = held
        self.set_adapter(name)

    def _open(self, found: Adapters, path: str) -> None:
        layer, site = self.get_submodule(path), AdapterSlot(found.choice)
        found.sites[path] = site
        if isinstance(layer, Linear):
            layer.site = site
        else:
            found.hooks[path] = nn.Module.register_forward_hook(layer, site.hook)  # it reads rows as they are

    def _close(self, found: Adapters, path: str) -> None:
        layer = self.get_submodule(path)
        del found.sites[path]
        if isinstance(layer, Linear):
            layer.site = None
        else:
            found.hooks.pop(path).remove()


def _named(adapter: str | None) -> str:
    return "the base alone" if adapter is None else f"adapter {adapter!r}"


def _batch(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many rows a call has."""
    names = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
    for value in (*args, *(kwargs.get(name) for name in names)):
        if isinstance(value, Tensor) and value.dim():
            return int(value.shape[0])
    raise InputError("adapters for rows: the call has no input_ids to count the rows of.")


def base_trains(model: nn.Module) -> bool:
    """Whether anything but adapters learns."""
    found = model._modules.get("adapters")
    own = {id(p) for p in found.parameters()} if isinstance(found, Adapters) else set()
    return any(p.requires_grad and id(p) not in own for p in model.parameters())
