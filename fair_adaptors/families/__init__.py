"""What differs between pipeline families, one file each; ``table`` lists them."""
