"""The measured libraries: one file each, imported only in the process that measures it."""
