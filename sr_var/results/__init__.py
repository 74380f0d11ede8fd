"""What the test scripts and samplers leave: folders, moments, jobs."""
