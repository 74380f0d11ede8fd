"""Mean, std and intervals of any image: reading, tiles, results, pictures and the run over files.

nets → tiles → predictor → run; images, results, pictures and truth stand beside them.
"""
