"""What a PACS is given: structured reports, segmentations, pages; and the same without identity."""
