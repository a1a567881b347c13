"""A vending machine."""
