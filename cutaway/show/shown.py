"""The one way in which every object of `cutaway.inspect` shows itself: it says what (a `Sheet`), and this shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from cutaway.show.sheet import Sheet


class Shown:
    """Base of what shows itself: in rich's consoles, as HTML in notebooks, and in short as `repr`."""

    def sheet(self) -> Sheet:
        """What there is to show."""
        raise NotImplementedError

    def summary(self) -> str:
        """The inside of `repr`."""
        raise NotImplementedError

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        # a dataclass writes a __repr__ of every number where its own body has none
        cls.__repr__ = Shown.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from cutaway.show.screen import Screen

        yield from Screen(console, options.max_width).drawn(self.sheet())

    def _repr_html_(self) -> str:
        from cutaway.show.html import rendered

        return rendered(self.sheet())
