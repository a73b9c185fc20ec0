"""From a bundle and a hospital's dataset to a new bundle: what to train, how on this machine, and from which weights."""
