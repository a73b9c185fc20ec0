"""Recipes, findings lists and bundles: data only; installed as `medvl_configs`."""
