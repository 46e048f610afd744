"""What `squeeze` does to a net, method by method, before the result is packed."""
