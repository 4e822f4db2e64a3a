"""The side of the worker: jobs and their line, the thread that draws, what it remembers. Nothing of HTTP but statuses."""
