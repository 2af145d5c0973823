"""The old place of `cutaway.nn` and `cutaway.models`: what the documents showed stays importable for one release."""
