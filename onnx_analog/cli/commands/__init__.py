"""The commands, one module each: its `command` is what the command line adds under the module's name."""
