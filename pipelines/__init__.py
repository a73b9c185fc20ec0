"""The verbs of the `medvl` command, one module each; installed as `medvl_pipelines`."""
