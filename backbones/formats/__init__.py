# shim: remove
