"""The commands of `hakmem`, a module a group."""
