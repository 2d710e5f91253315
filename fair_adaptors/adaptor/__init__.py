"""What an adaptor is: its record, its folder, and the modules it changes."""
