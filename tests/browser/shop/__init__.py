"""A small shop with a staff room, in which the browser tests look around."""
