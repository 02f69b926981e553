"""How fast and how lean: measures of a whole stack, through its public address."""
