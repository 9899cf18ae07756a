"""Plugs into other libraries, one file each; importing the file connects it."""
