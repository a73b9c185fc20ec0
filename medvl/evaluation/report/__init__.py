"""A results record as a report that people read: Markdown with figures beside it, and one HTML file with everything in it."""
