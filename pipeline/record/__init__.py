"""What was trained on, as Zarr."""
