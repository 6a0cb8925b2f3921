"""Where kernel trees come from, one module for each kind of source."""
