"""Examines COCO, ADE20K and DAVIS folders: what is there, missing or damaged, and where to get it."""
