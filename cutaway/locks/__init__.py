"""Who may go on: one thread of a process, or one process of those that write a file."""
