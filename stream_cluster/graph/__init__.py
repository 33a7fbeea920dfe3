"""The links between objects, reduced to what answers every threshold: a maximum spanning forest.

Pure: arrays in, arrays out. Packing of links for storage, the forest, connected components, track links.
"""
