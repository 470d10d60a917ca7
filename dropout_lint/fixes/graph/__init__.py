"""The plan carried out in the traced graph: a module that trains."""
