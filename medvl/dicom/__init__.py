"""DICOM in: what a folder holds, which series to use, and its volume in Hounsfield units. Imports no torch."""
