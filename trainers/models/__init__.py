"""Network architectures, one file each; ``registry.py`` builds them by kind."""
