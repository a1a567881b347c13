"""What the data of a chip card mean: EMV, as far as a card has to be chosen and read."""
