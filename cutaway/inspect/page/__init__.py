"""The page of `explain`: one file that needs nothing else. Its built script and style stand in `web/`."""
