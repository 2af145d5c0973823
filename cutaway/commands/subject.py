"""The model, tokenizer and texts that a command looks into, and what it writes of what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import as_line, write
from cutaway.commands.file_names import check_folder, check_no_file
from cutaway.commands.text_input import lines
from cutaway.errors import InputError, MissingExtraError, nearest
from cutaway.inspect.plots.canvas import FORMATS, Origin, save_figure
from cutaway.jsonfile import write_aside, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cutaway.inspect.target import Target
    from cutaway.show.sheet import Sheet
    from cutaway.tokenization.batch_encoding import BatchEncoding
    from cutaway.tokenization.protocols import TokenizerLike

Outputs = Annotated[
    list[Path] | None,
    typer.Option("--output", "-o", help="Also write a file: .png, .svg, .pdf, .html, .npz or .json. May be repeated."),
]
Dark = Annotated[bool, typer.Option("--dark", help="Draw the picture on dark paper.")]
Text = Annotated[str | None, typer.Argument(help="The text; without it, or with -, all of stdin.")]
TextOrTrace = Annotated[
    str | None, typer.Argument(help="The text, or a saved trace; without it, or with -, all of stdin.")
]
Wanted = Annotated[
    str | None, typer.Option(help="The answer to explain: a label, a token, or #NUMBER. The likeliest if not given.")
]
Against = Annotated[str | None, typer.Option(help="Why the target and not this one.")]
Position = Annotated[
    int | None,
    typer.Option(help="Where the answer stands, for models that answer at every token. The last, or the mask."),
]


def check_outputs(
    output: list[Path] | None, known: tuple[str, ...] = (*FORMATS, ".html", ".npz", ".json")
) -> list[Path]:
    """The files to write, before a model is loaded; raises typer.BadParameter for one that cannot be written."""
    for path in output or []:
        if path.suffix.lower() not in known:
            raise typer.BadParameter(f"{path.name}: the name must end in one of {', '.join(known)}.")
        check_folder(path)
    return output or []


def read_text(text: str | None) -> str:
    """The argument, or all of stdin; InputError where it is empty."""
    if text in (None, "-"):
        found = "\n".join(lines()).strip()
    else:
        found = str(text)
        check_no_file(found, "Pipe its content in: cutaway ... - < {}.")
    if not found.strip():
        raise InputError("The text is empty: there is nothing to look into. Give at least one word.")
    return found


def write_outputs(
    output: list[Path],
    record: dict[str, Any],
    arrays: dict[str, Any],
    draw: Callable[[], Figure],
    as_json: bool,
    own: Mapping[str, Callable[[Path], object]] | None = None,
    *,
    sheet: Sheet | None = None,
    dark: bool = False,
) -> None:
    """Each file in the format of its ending, those in `own` as that says; then the JSON line, or the files' names."""
    for path in output:
        kind = path.suffix.lower()
        if own is not None and kind in own:
            own[kind](path)
        elif kind == ".json":
            write_text(path, as_line(record) + "\n")
        elif kind == ".npz":
            import numpy as np

            def compressed(aside: Path) -> None:
                with aside.open("wb") as file:  # a name would get .npz behind it
                    np.savez_compressed(file, **arrays)

            write_aside(path, compressed)
        elif kind == ".html" and sheet is not None:
            from cutaway.show.document import document

            write_text(path, document(sheet, _picture(draw), dark=dark))
        else:
            save_figure(draw(), path)
    if as_json:
        write(as_line(record))
    elif output:
        write("\nWrote " + ", ".join(str(path) for path in output))


def _picture(draw: Callable[[], Figure]) -> bytes | None:
    """The picture as SVG; None where matplotlib is not installed."""
    from io import BytesIO

    try:
        figure = draw()
    except MissingExtraError:
        return None
    held = BytesIO()
    figure.savefig(held, format="svg", metadata={"Date": None})
    return held.getvalue()


def told(origin: Origin) -> str:
    """The provenance of a page: the model, and what it read."""
    return f"cutaway {origin.version} · {origin.model} · “{origin.text}”"


@dataclass(frozen=True)
class Subject:
    """A loaded model with its tokenizer; `name` is safe to show."""

    name: str
    model: Any  # the command's measure says what it must be able to do
    tokenizer: TokenizerLike
    kind: str

    @classmethod
    def load(cls, name: str, load: dict[str, Any]) -> Subject:
        from cutaway.inspect.asked import kind_of
        from cutaway.inspect.explainer import load_model

        model, tokenizer = load_model(name, **load)
        model.eval()
        path = Path(name)
        return cls(path.name if path.is_absolute() else name, model, tokenizer, kind_of(model))

    def encoded(self, text: str) -> BatchEncoding:
        """What the tokenizer gives, with its offsets; the model says that a text is too long."""
        return self.tokenizer(text, return_offsets_mapping=True, verbose=False)

    def inputs(self, text: str) -> dict[str, Any]:
        """One text as a batch; an encoder-decoder's decoder is given the token it starts with."""
        import torch

        encoding = self.encoded(text)
        wanted = (key for key in encoding if key != "offset_mapping")
        found = {key: torch.tensor([list(encoding[key])], device=self.model.device) for key in wanted}  # [1, L]
        if self.model.is_encoder_decoder:
            start = torch.tensor([[self.model.config.decoder_start_token_id]], device=self.model.device)
            found["decoder_input_ids"] = start
        return found

    def label(self, id: int) -> str:
        """One token as a reader should see it."""
        from cutaway.show.label import token_label

        special = id in self.tokenizer.all_special_ids
        return token_label(self.tokenizer, self.tokenizer.convert_ids_to_tokens(id), id, special)

    def labels(self, ids: Iterable[int]) -> list[str]:
        """The tokens of a text; several masks are told apart."""
        from cutaway.show.label import numbered_masks

        numbers = [int(id) for id in ids]
        return numbered_masks([self.label(id) for id in numbers], numbers, self.tokenizer.mask_token_id)

    def origin(self, text: str, error: float | None = None) -> Origin:
        config = self.model.config
        return Origin(f"{self.name} ({config.model_type}, {self.model.precision.name})", text, error)

    def told(self, text: str) -> str:
        """The provenance of a page: the model, and what it read."""
        return told(self.origin(text))

    def answer(self, index: int) -> str:
        """The name of an answer: a class's, or a token's."""
        return str(self.model.config.id2label[index]) if self.kind == "labels" else self.label(index)

    def target(self, inputs: dict[str, Any], wanted: str | None, against: str | None, position: int | None) -> Target:
        """What the options ask for. InputError for an answer that the model does not give."""
        from cutaway.inspect.target import Target

        if self.kind == "states":
            raise InputError(
                f"{type(self.model).__name__} gives vectors and no answer, so there is nothing to explain. Take a "
                "checkpoint with a head: a classifier, a masked or a causal language model."
            )
        if self.kind == "mask" and position is None:
            at = (inputs["input_ids"][0] == self.tokenizer.mask_token_id).nonzero().flatten().tolist()
            if not at:
                raise InputError(f"The text has no {self.tokenizer.mask_token}; put one in, or give --position.")
            position = at[0]
        return Target(self._index("target", wanted), self._index("against", against), position)

    def _index(self, option: str, wanted: str | None) -> int | None:
        if wanted is None:
            return None
        if wanted[:1] == "#" and wanted[1:].isdecimal() and len(wanted) <= 20:
            return int(wanted[1:])
        if self.kind == "labels":
            names = {str(label).lower(): int(index) for index, label in self.model.config.id2label.items()}
            if wanted.lower() not in names:
                known = [str(label) for label in self.model.config.id2label.values()]
                raise InputError(f"--{option} {wanted}: the labels are {', '.join(known)}.{nearest(wanted, known)}")
            return names[wanted.lower()]
        for text in (wanted, " " + wanted.lstrip(" ")):
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) == 1:
                return int(ids[0])
        parts = ", ".join(self.labels(ids))
        raise InputError(f"--{option} {wanted}: that is {len(ids)} tokens ({parts}); name one of them, or #NUMBER.")
