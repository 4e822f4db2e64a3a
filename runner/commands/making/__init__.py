"""From what a command was told to pictures and films on disk."""
