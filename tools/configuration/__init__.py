"""What a training's config may say: its keys as dataclasses, and the reader that checks them."""
