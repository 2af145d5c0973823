"""One command for each task: texts or the rows of a table in, answers or a table with answers out."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.default_model import default_decoder
from cutaway.commands.display import as_line, console, plain, write
from cutaway.commands.examples import epilog
from cutaway.commands.job_progress import JobProgress
from cutaway.commands.model_head import NEEDED, check_head, config_of
from cutaway.commands.option import (
    SENTIMENT,
    AsJson,
    Delimiter,
    Dtypes,
    Encoding,
    Offline,
    Revision,
    Texts,
    Threads,
    Truncation,
    load_arguments,
    pipeline_arguments,
)
from cutaway.commands.text_input import texts_or_stdin
from cutaway.errors import counted

if TYPE_CHECKING:
    from cutaway.jobs import Job, Summary, TableReader, TableWriter
    from cutaway.pipelines.base import Pipeline

Option = tuple[Any, Any]  # its annotation for typer, and its default


def option(kind: object, help: str, default: object = None, **bounds: Any) -> Option:
    """One option of a command."""
    return Annotated[kind, typer.Option(help=help, **bounds)], default


@dataclass(frozen=True)
class Task:
    """A command.

    Attributes:
        name, task, help: the command's name, its pipeline's, and its line in --help.
        own: its options, those of the pipeline's call.
        constant: a column that may be the same for all rows: its option's name, and what it is.
        together: the column that takes all texts of the command line as one list.
        model: the model when none is named; None: the pipeline's default.
    """

    name: str
    task: str
    help: str
    own: dict[str, Option] = field(default_factory=dict)
    constant: tuple[str, str] | None = None
    together: str = ""
    model: str | None = None


STOPPED = 130  # what a shell calls a program that Ctrl-C ended
DECODED = ("perplexity", "text-generation")  # tasks whose default is a decoder
WRITTEN = ("summarization", "translation", "text2text-generation", "text-generation")  # tasks whose answer is a text
EMPTY = (
    "An answer is empty: the model ended it before the first word, as one does that was not trained for the task. Take "
    "one that was; in Python, min_new_tokens asks for more."
)
TOP_K = option(int | None, "How many answers to give; the task's own number if not given.", min=1)
NEW_TOKENS = option(int | None, "How many tokens to write at most.", min=1)
BEAMS = option(int | None, "Search with so many beams.", min=1)
COMMANDS = (
    Task(
        "classify",
        "text-classification",
        "Label texts, with a score for each label.",
        {"top_k": TOP_K},
        model=SENTIMENT,
    ),
    Task(
        "sort",
        "zero-shot-classification",
        "Sort texts under labels of your own.",
        {
            "candidate_labels": (Annotated[list[str], typer.Option("--label", help="A label; repeat it.")], ...),
            "multi_label": option(bool, "Each label by itself, not one of them.", False),
            "hypothesis_template": option(str | None, "The sentence around a label, with {} in its place."),
        },
    ),
    Task(
        "entities",
        "token-classification",
        "Find names of people, places and so on, with their places in the text.",
        {"aggregation_strategy": option(str, "none, simple, first, average or max.", "simple")},
    ),
    Task(
        "answer",
        "question-answering",
        "Find the answer to a question in each text.",
        {"top_k": TOP_K, "handle_impossible_answer": option(bool, "No answer may be the answer.", False)},
        constant=("question", "The question; not needed where a table has a column of questions."),
    ),
    Task("fill-mask", "fill-mask", "Fill the gaps of texts.", {"top_k": TOP_K}),
    Task(
        "embed",
        "feature-extraction",
        "Turn each text into one vector.",
        {
            "pooling": option(str, "mean, cls, max, or model: what its folder says.", "mean"),
            "normalize": option(bool, "Vectors of length 1.", False),
        },
    ),
    Task(
        "similar",
        "sentence-similarity",
        "Compare texts with one, --source-sentence: the cosine of their vectors.",
        {"pooling": option(str, "mean, cls, max, or model: what its folder says.", "model")},
        constant=("source_sentence", "The text that the others are compared with; or a column of a table."),
        together="sentences",
    ),
    Task(
        "rerank",
        "rerank",
        "Order documents, the arguments, by how well they answer a query, --query.",
        {"top_k": TOP_K},
        constant=("query", "The query; not needed where a table has a column of queries."),
        together="documents",
    ),
    Task(
        "choose",
        "multiple-choice",
        "Choose how a prompt, --prompt, goes on: with which of the choices, the arguments.",
        constant=("prompt", "The prompt; not needed where a table has a column of prompts."),
        together="choices",
    ),
    Task("perplexity", "perplexity", "Measure how well a decoder foresees texts."),
    Task("summarize", "summarization", "Shorten texts.", {"max_new_tokens": NEW_TOKENS, "num_beams": BEAMS}),
    Task(
        "translate",
        "translation",
        "Translate texts.",
        {
            "max_new_tokens": NEW_TOKENS,
            "num_beams": BEAMS,
            "src_lang": option(str | None, "The language of the texts, as the model names it."),
            "tgt_lang": option(str | None, "The language to write, as the model names it."),
        },
    ),
    Task("rewrite", "text2text-generation", "Any text to text.", {"max_new_tokens": NEW_TOKENS, "num_beams": BEAMS}),
    Task(
        "continue",
        "text-generation",
        "Continue the texts of a table (`generate` shows each token as it comes).",
        {
            "max_new_tokens": NEW_TOKENS,
            "do_sample": option(bool, "Draw tokens.", False),
            "seed": option(int | None, "Of --do-sample."),
        },
    ),
)

SHARED: dict[str, Option] = {
    "input": (
        Annotated[Path | None, typer.Option("--input", "-i", help="A table: .txt .csv .tsv .jsonl .parquet, or -.")],
        None,
    ),
    "output": (
        Annotated[
            Path | None,
            typer.Option(
                "--output", "-o", help="The table to write: .csv .tsv .jsonl .parquet. A stopped job goes on."
            ),
        ],
        None,
    ),
    "column": (
        Annotated[list[str] | None, typer.Option(help="The column with the texts; or NAME=COLUMN. May be repeated.")],
        None,
    ),
    "encoding": (Encoding, None),
    "delimiter": (Delimiter, None),
    "on": option(str | None, "ray: score on a Ray cluster, here or at --address."),
    "workers": option(int, "With --on ray: processes that each hold the model.", 2, min=1),
    "address": option(str | None, "With --on ray: the cluster; one on this machine if not given."),
    "prefix": option(str, "Put before the names of the answers' columns.", ""),
    "columns": (
        Annotated[
            bool,
            typer.Option("--columns", help="Of classify and sort: a column for each label's score, not JSON in one."),
        ],
        False,
    ),
    "overwrite": option(bool, "Replace the output, and start again.", False),
    "long": option(str | None, "A text over the model's length: error, truncate, or window where the task can."),
    "truncation": (Truncation, False),
    "as_json": (AsJson, False),
    "revision": (Revision, None),
    "offline": (Offline, False),
    "threads": (Threads, None),
    "dtype": (Dtypes, None),
}


def command(spec: Task) -> Callable[..., None]:
    """The function that typer calls for a task, with a parameter for each of its options."""
    model = Annotated[str | None, typer.Option("--model", "-m", help="A name, a folder, or a .gguf file.")]
    options: dict[str, Option] = {"texts": (Texts, None), "model": (model, spec.model)}
    if spec.constant:
        options[spec.constant[0]] = option(str | None, spec.constant[1])
    options |= {**spec.own, **SHARED}

    def run(**given: object) -> None:
        own = {name: given.pop(name) for name in spec.own}
        constant = {spec.constant[0]: given.pop(spec.constant[0])} if spec.constant else {}
        Call(spec, own, {name: value for name, value in constant.items() if value is not None}, given).run()

    run.__name__, run.__doc__ = spec.name.replace("-", "_"), spec.help
    kinds = {name: kind for name, (kind, _) in options.items()}
    run.__annotations__ = {**kinds, "return": None}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, keyword, default=default, annotation=kind) for name, (kind, default) in options.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    return run


class Call:
    """One call of a task's command."""

    def __init__(self, spec: Task, own: dict[str, Any], constant: dict[str, Any], shared: dict[str, Any]) -> None:
        self.spec, self.constant, self.shared = spec, constant, shared
        from cutaway.jobs.answers import TASKS

        self.answers = TASKS[spec.task]
        chosen = {**own, "truncation": shared["truncation"] or None, "long": shared["long"]}
        self.settings = {name: value for name, value in chosen.items() if value is not None}
        self.renamed = self._renamed(shared["column"] or [])
        for name, text in constant.items():
            if not text.strip():
                raise typer.BadParameter(f"--{name.replace('_', '-')} is empty; give at least a word.")
        if shared["texts"] and shared["input"] is not None:
            raise typer.BadParameter(f"{shared['texts'][0]!r:.60} is a text, and --input a table; give one of them.")
        if shared["output"] is not None and shared["input"] is None:
            raise typer.BadParameter("--output needs --input (a file, or - for the lines of stdin).")
        if shared["delimiter"] is not None and shared["input"] is None:
            raise typer.BadParameter("--delimiter needs --input, a .csv or .tsv file.")
        if shared["on"] not in (None, "ray"):
            raise typer.BadParameter(f"--on {shared['on']}: it can only be ray.")
        if shared["on"] and shared["output"] is None:
            raise typer.BadParameter("--on ray needs --input and --output: it scores tables.")

        if shared["long"] not in (None, "error", "truncate", "window"):
            raise typer.BadParameter(f"--long {shared['long']}: it can be error, truncate or window.")
        if shared["columns"]:
            self._check_columns()

    def _check_columns(self) -> None:
        if self.spec.task not in ("text-classification", "zero-shot-classification"):
            raise typer.BadParameter(f"--columns: {self.spec.name} gives no scores of labels.")
        if self.shared["input"] is None:
            raise typer.BadParameter("--columns needs --input, a table.")
        if self.shared["on"]:
            raise typer.BadParameter("--columns is not there with --on ray; leave one of them out.")
        if self.settings.get("top_k") is not None:
            raise typer.BadParameter("--columns gives the scores of all labels, --top-k those of some; give one.")

    def _labels(self) -> list[str]:
        """The labels that --columns makes columns of, known before a model is loaded."""
        if self.spec.task == "zero-shot-classification":
            return list(dict.fromkeys(self.settings["candidate_labels"]))
        from cutaway.auto import AutoConfig

        given = self.shared
        load = load_arguments(given["revision"], given["offline"], given["threads"], None)
        config = AutoConfig.from_pretrained(given["model"] or SENTIMENT, **load)
        return [str(config.id2label[i]) for i in range(config.num_labels)]

    def _renamed(self, columns: list[str]) -> dict[str, str]:
        """--column NAME=COLUMN, or COLUMN for the one that holds the text."""
        reads = self.answers.reads
        found = {}
        for column in columns:
            name, _, value = column.rpartition("=")
            name = name or reads[0]
            if name not in reads:
                raise typer.BadParameter(f"--column {column}: {self.spec.name} reads {', '.join(reads)}.")
            found[name] = value
        return found

    def pipe(self) -> Pipeline:
        """The pipeline."""
        given = self.shared
        load = pipeline_arguments(given["revision"], given["offline"], given["threads"], given["dtype"])
        from cutaway.pipelines import pipeline
        from cutaway.pipelines.fit import check_long

        name = given["model"]
        if name is None and self.spec.task in DECODED:
            name = default_decoder({"revision": given["revision"]} if given["revision"] else {})
        if name is not None and self.spec.task in NEEDED:
            check_head(name, config_of(name, load), self.spec.task, f"used by cutaway {self.spec.name}")
        made = pipeline(self.spec.task, name, **load)
        made.each(
            [], **self.settings
        )  # a setting or a language that it does not take is an error once, not of every row
        if self.shared["long"] is not None:
            check_long(self.shared["long"], made.ways)
        return made

    def run(self) -> None:
        """Reads, scores, prints or writes."""
        if self.shared["input"] is None:
            self._texts()
        else:
            self._table()

    def _check_constant(self) -> None:
        """What all texts of the command line go with must be there: the question, the query, the prompt."""
        if self.spec.constant and self.spec.constant[0] not in self.constant:
            name = self.spec.constant[0]
            what = self.spec.together or "texts"
            raise typer.BadParameter(
                f"the {name.replace('_', ' ')} is missing: {self.spec.name} takes the {what} as arguments and it as "
                f"--{name.replace('_', '-')}. {epilog(self.spec.name)}"
            )

    def _items(self) -> Iterator[dict[str, Any]]:
        self._check_constant()
        texts = texts_or_stdin(self.shared["texts"], self.shared["encoding"], "Tables are read with --input {}.")
        if self.spec.together:
            return iter([{**self.constant, self.spec.together: list(texts)}])
        name = next(name for name in self.answers.reads if name not in self.constant)
        return ({**self.constant, name: text} for text in texts)

    def _texts(self) -> None:
        rows = self._items()
        pipe = self.pipe()
        from cutaway.show.label import printable

        kept: list[dict[str, Any]] = []

        def stream() -> Iterator[Any]:
            for row in rows:
                kept.append(row)
                yield self.answers.item(row, {})

        if self.spec.task == "text-classification":
            self.settings.setdefault("top_k", None)
        screen = console()
        for answer in pipe(stream(), **self.settings):
            row, found = kept.pop(0), dict(zip(self.answers.writes, self.answers.columns(answer), strict=True))
            if self.shared["as_json"]:
                write(as_line({**row, **found}))
            elif "labels" in found:
                scores = "  ".join(f"{printable(entry['label'])} {entry['score']:.4f}" for entry in found["labels"])
                screen.print(plain(f"{scores}  {printable(row['text'])}"), soft_wrap=True)
            else:
                shown = next(iter(found.values())) if len(found) == 1 else found
                if isinstance(shown, str) and not shown.strip() and self.spec.task in WRITTEN:
                    sys.stderr.write(f"{EMPTY}\n")
                screen.print(plain(printable(shown if isinstance(shown, str) else as_line(shown))), soft_wrap=True)

    def _table(self) -> None:
        from cutaway.jobs import Job, TableReader, TableWriter
        from cutaway.jobs.table_writer import row_line

        how = {"encoding": self.shared["encoding"], "delimiter": self.shared["delimiter"]}
        reader = TableReader(self.shared["input"], **how)
        if self.spec.task == "feature-extraction":
            self.settings["return_tensors"] = "np"
        if self.shared["columns"]:
            from cutaway.jobs.answers import with_label_columns

            self.answers = with_label_columns(self.answers, self._labels())
            if self.spec.task == "text-classification":
                self.settings["top_k"] = None
        job = Job(None, self.answers, self.renamed, self.constant, self.shared["prefix"], self.settings)
        if reader.columns is not None:
            job.check(reader.columns, f"--{self.spec.constant[0].replace('_', '-')}" if self.spec.constant else "")
        if self.shared["output"] is None:
            job.pipe = self.pipe()
            blank: list[int] = []
            faulty, column = 0, job.writes()[-1]
            for row in job.rows(reader, blank):
                faulty += bool(row[column])
                write(row_line(row, ascii=True))
            if faulty:
                sys.stderr.write(f"{counted(faulty, 'row')} with an error (see the column {column!r}).\n")
            self._say_blank(blank)
            return
        with TableWriter(self.shared["output"], self._identity(reader), overwrite=self.shared["overwrite"]) as writer:
            if writer.done:
                sys.stderr.write(f"Going on after {counted(writer.done, 'row')} done before.\n")
            if self.shared["on"]:
                summary = self._on_ray(job, reader, writer)
            else:
                job.pipe = self.pipe()
                summary = self._here(job, reader, writer)
        failed = f", {summary.failed:,} with an error (see the column {job.writes()[-1]!r})" if summary.failed else ""
        sys.stderr.write(f"{self.shared['output']}: {counted(summary.rows, 'row')}{failed}\n")
        self._say_blank(summary.blank)

    def _say_blank(self, numbers: Sequence[int]) -> None:
        from cutaway.pipelines.row_faults import blank_rows

        if said := blank_rows(numbers, "no answer"):
            sys.stderr.write(said + "\n")

    def _here(self, job: Job, reader: TableReader, writer: TableWriter) -> Summary:
        """The job in this process; Ctrl-C says what is kept and how to go on."""
        try:
            with JobProgress(writer.done, reader.count()) as progress:
                return job.run(reader, writer, progress)
        except KeyboardInterrupt:
            sys.stderr.write(
                f"Stopped. {counted(writer.done, 'row')} kept in {writer.partial}; the same command goes on after "
                "them, and --overwrite starts again.\n"
            )
            raise typer.Exit(STOPPED) from None

    def _on_ray(self, job: Job, reader: TableReader, writer: TableWriter) -> Summary:
        from cutaway.distributed import RayJob, Work, cluster

        given, workers = self.shared, self.shared["workers"]
        threads = given["threads"] or 1
        work = Work(
            self.spec.task,
            given["model"],
            job.renamed,
            job.constant,
            job.prefix,
            job.settings,
            pipeline_arguments(given["revision"], given["offline"], None, given["dtype"]),
            threads,
        )
        with cluster(given["address"], workers=workers), JobProgress(writer.done) as progress:
            return RayJob.of(work, workers).run(reader, writer, progress)

    def _identity(self, reader: TableReader) -> dict[str, Any]:
        """What makes a job the same job when it is started again."""
        file: dict[str, Any] = {}
        source = reader.path
        if source is not None:
            status = source.stat()
            file = {"path": str(source.resolve()), "bytes": status.st_size, "time": status.st_mtime_ns}
        if reader.encoding is not None:
            file["encoding"] = reader.encoding
        if self.shared["delimiter"] is not None:
            file["delimiter"] = reader.delimiter
        given = {name: self.shared[name] for name in ("model", "prefix", "revision", "dtype")}
        columns = {"label_columns": True} if self.shared["columns"] else {}
        return {
            "task": self.spec.task,
            "file": file,
            **columns,
            "columns": self.renamed,
            "constant": self.constant,
            "settings": {name: repr(value) for name, value in self.settings.items()},
            **given,
        }
