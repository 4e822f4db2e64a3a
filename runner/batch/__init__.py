"""Pictures of a whole file of requests: on the cores of one machine, or on the nodes of a Ray cluster."""
