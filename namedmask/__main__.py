"`python -m namedmask` is the command `namedmask`."
import sys
from namedmask.cli import main

if __name__ == '__main__': sys.exit(main())
