"""What every folder of the runner may use: errors, options, progress, scratch folders, memory."""
