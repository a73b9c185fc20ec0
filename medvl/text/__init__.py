"""Reports in: sections, regions, labels, prompts; all from words alone."""
