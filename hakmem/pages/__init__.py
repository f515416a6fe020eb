"""What people read: the parts of a page, one report, the shelf of all."""
