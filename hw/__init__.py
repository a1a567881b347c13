"""What the terminal sees of the world: readers and the lines they hang on."""
