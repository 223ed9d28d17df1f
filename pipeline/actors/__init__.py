"""Ray shells around plain objects: they delegate and decide nothing."""
