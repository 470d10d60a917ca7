"""The fix room: rewrite the graph or the user's source, and prove that nothing else changed."""
