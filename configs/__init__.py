"""Training configs and lists of pictures, installed as `swiftsight_configs`: data only."""
