"""Readers of data sets: files on disk in, (picture, labels) out. File conventions end in these modules."""
