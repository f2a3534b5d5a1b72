"""``lakehouse new pipeline``: look at a file, write the declaration and the contract that fit it."""
