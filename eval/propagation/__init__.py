"""What the tasks that propagate labels through videos share. Needs no OpenMMLab package."""
