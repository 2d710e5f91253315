"""Banks of real faces: what they are, and how they are built."""
