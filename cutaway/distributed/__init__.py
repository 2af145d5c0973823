"""The same scoring on more than one machine: actors of Ray Data, or an iterator function for Spark."""

from cutaway.distributed.cluster import cluster
from cutaway.distributed.ray_job import RayJob, map_batches
from cutaway.distributed.scorer import Work
from cutaway.distributed.spark import spark_function

__all__ = ["RayJob", "Work", "cluster", "map_batches", "spark_function"]
