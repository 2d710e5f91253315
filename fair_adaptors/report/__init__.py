"""What people read of an evaluation: its page, with plots and pictures, and the card of an adaptor."""
