"""`python -m data_prep <job> ...`"""

import sys

from data_prep.main import main

sys.exit(main(sys.argv[1:]))
