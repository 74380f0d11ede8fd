"""`make demo-restore`: three degradations, and intervals that hold on photographs of their own.

photographs → commands → results → page. The first two without torch.
"""
