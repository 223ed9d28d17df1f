"""Online against offline training, measured on one study."""
