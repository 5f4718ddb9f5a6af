"""What a text would have been under other decisions."""
