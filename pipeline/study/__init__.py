"""What a study says, checked before anything starts."""
