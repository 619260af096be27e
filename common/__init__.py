"""What every part of PatchBench shares and no part owns: the command line's manners and safe writing of files."""
