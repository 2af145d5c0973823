"""Jobs over files: every row of a table gets its answer or its error, and a job that was stopped goes on."""

from cutaway.jobs.answers import TASKS, Answers
from cutaway.jobs.job import Job, Summary
from cutaway.jobs.table_reader import Row, TableReader
from cutaway.jobs.table_writer import TableWriter

__all__ = ["TASKS", "Answers", "Job", "Row", "Summary", "TableReader", "TableWriter"]
