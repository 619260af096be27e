# shim: remove
import sys

from common.launch import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
