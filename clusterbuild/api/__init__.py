"""The protocol of clusterbuild."""
