"""Commands that look at one thing and say it."""
