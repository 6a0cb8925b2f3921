"""Pages of docs/reference that are generated from the code: `make reference`."""
