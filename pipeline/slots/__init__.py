"""What lies in a slot, and the shared memory it lies in."""
