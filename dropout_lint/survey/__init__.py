"""The survey: facts about each dropout and each way from a dropout to a norm."""
