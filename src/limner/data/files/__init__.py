"""Image files: stores (folders, ZIP files, downloads), layouts and decoding."""
