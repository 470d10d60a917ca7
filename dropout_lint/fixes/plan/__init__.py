"""What is to be done about each finding, judged before anything is rewritten."""
