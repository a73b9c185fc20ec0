"""The overnight run: every study once, none lost, none twice."""
