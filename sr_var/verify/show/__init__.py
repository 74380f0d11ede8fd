"""What people look at: the table, the page, the pictures; computes no metric."""
