"""The report: one page for people who never open a terminal."""
