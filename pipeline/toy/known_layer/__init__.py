"""A hand-made layer in superposition: which methods find its features?"""
