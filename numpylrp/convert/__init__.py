"""Models in HDF5 files: our own schema (`native`) and what others export."""
