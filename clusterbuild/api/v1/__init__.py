"""Generated from proto/clusterbuild/v1 when the project is built."""
