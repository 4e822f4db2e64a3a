"""Files at rest: what a bundle holds, read strictly and checked before it is used."""
