"""Names to files: a folder, a model that ships with the package, or a repository on the hub."""
