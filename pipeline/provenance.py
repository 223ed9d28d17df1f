"""What only the study knows of its surrogate: added to the surrogate's card when the study ends.

A hash is the SHA-256 of JSON with sorted keys and no spaces: the same study, the same hash.
"""
