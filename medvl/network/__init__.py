"""Images and results over the network: DICOMweb and the DICOM upper layer."""
