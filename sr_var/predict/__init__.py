"""Mean, std and intervals of any image: reading, tiles, results, pictures and the run over files.

nets → tiles and images → conditions → arrays, both → predictor → run; partners, results, pictures
and truth stand beside them.
"""
