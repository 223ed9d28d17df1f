"""LAUNCH and WATCH: turns a study into running processes, and shows it."""
