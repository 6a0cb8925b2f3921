"""The steps of a build, one module each: `run(context, task) -> result`."""
