"""One campaign over many hosts."""
