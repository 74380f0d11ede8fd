"""How a script lives, reports and dies: errors and exit codes, signals, progress, the console."""
