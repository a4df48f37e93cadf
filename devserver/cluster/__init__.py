"""Other servers: who is there, how they join, connections relayed to them."""
