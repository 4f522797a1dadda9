"""Scanners of others, as they were published, to compare with in the same run."""
