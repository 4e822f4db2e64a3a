"""The runner's subcommands. Each module has HELP, add_arguments(parser) and run(args); nothing heavy at import."""
