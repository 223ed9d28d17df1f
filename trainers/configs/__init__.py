"""Settings of networks and tasks, without torch."""
