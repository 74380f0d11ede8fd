"""What every script does around its work."""
