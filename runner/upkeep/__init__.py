"""Jobs over a whole bundle: pack it for this machine, replay its sealed examples."""
