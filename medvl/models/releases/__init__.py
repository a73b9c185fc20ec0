"""Published weights of other projects: which of their names is which of ours."""
