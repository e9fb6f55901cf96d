"""Where items are processed: executors and the worker's side of them."""
