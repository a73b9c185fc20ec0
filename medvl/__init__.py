"""medvl: vision-language models for 3D CT and radiology reports. Importing it loads no torch."""

__version__ = "0.1.0"
