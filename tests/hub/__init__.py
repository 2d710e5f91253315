"""A Hub on loopback: huggingface_hub's own requests, answered from real git repositories, with faults on demand."""
