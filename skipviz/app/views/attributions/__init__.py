"""What the page Attribution shows: over tokens, and over depth."""
