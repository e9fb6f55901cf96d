"""What class averages show: how good they are, and their shape."""
