"""Where truth and defence meet: measuring attacks and repairs. Sealed: no defence may import this."""
