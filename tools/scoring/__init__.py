"""What `eval` says of each kind of net: figures, tables, and the pictures that go with them."""
