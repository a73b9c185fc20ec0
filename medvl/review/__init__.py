"""What humans decided about a results folder: decisions, signatures, who saw what, and all of it for others to read."""
