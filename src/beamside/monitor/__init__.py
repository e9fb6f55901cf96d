"""What people look at: status, metrics and the HTML report."""
