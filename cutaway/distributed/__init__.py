"""The same on more than one machine: scoring by actors of Ray Data or a function for Spark, the server on Ray Serve."""

from cutaway.distributed.cluster import cluster
from cutaway.distributed.ray_job import RayJob, map_batches
from cutaway.distributed.ray_serve import deployment
from cutaway.distributed.scorer import Work
from cutaway.distributed.spark import spark_function

__all__ = ["RayJob", "Work", "cluster", "deployment", "map_batches", "spark_function"]
