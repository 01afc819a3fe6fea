"""What every adapter needs of a reactor."""
