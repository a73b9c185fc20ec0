"""From a hospital's spreadsheet to a dataset: checked, converted once, free of identifiers, and split by patient."""

from medvl.dataset.opened import Dataset, is_dataset, open_dataset, open_studies

__all__ = ["Dataset", "is_dataset", "open_dataset", "open_studies"]
