"""Generated from proto/clusterdep/v1 when the project is built."""
