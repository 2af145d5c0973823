"""What must be refused, as data, and the process that tries it all."""
