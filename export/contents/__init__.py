"""What the exporter writes into a part's folder: weights, model layouts, constants, sealed examples."""
