"""JHMDB: joints that labels of a video's first frame carry through it, and PCK."""
