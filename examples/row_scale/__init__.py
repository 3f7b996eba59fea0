"""A family outside of tilewright's own folders: three files, nothing registered anywhere."""
