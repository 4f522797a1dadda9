"""What can be proved of a file before it is used: what its bytes are, who signed them, and what they hold."""
