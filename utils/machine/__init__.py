"""What a process has of its machine: who it is, its threads, its allocator, what things cost."""
