"""The demos of this task: commands that a user could type, in order, and what came of them.

commands → steps, words. No torch when imported.
"""
