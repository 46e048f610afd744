"""Readers of data sets: files on disk in, (picture, `Target`) out. File conventions end in these modules."""
