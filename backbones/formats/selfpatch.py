# shim: remove
NAME = "selfpatch"
