"""From a torch module to a circuit: export, lift, name, and read models from disk or the hub."""
