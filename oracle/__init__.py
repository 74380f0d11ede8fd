"""A data set whose conditional law is known in closed form: mathematics on tensors, no files.

Imports torch and nothing of the project. Files of it are made by `sr_var.data.oracle`.
"""
