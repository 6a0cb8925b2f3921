"""Documents that vouch for an image: what is signed, in which envelope, and how it hangs beside the image. Values in, bytes out."""
