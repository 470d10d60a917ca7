"""What an operation is, and how data flows through the traced graph."""
