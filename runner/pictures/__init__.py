"""Picture files: read, fetched, written, laid out on sheets, with the story of how they were made."""
