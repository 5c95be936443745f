"""Which decay does an optimizer really apply?"""
