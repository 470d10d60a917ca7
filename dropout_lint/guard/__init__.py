"""What keeps the user's model, its modes, threads and random numbers as they were."""
