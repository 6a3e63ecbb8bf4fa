"""Images: channels last, flattened, with everything that joins a convolution."""
