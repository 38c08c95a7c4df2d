"""Files, paths, worker processes, and terminal output."""
