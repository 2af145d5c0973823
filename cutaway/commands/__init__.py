"""The commands of `cutaway`, one a file; cutaway.cli registers them. None imports torch before it runs."""
