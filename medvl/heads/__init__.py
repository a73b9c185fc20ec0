"""What one trained model is used for: zero-shot answers, probes, report drafts, segmentation."""
