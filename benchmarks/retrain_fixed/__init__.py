"""What the tool's own fixes do to test error: networks fixed by the command line and retrained."""
