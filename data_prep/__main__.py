"""`python -m data_prep <job> ...`"""

import signal
import sys

try:
    from data_prep.main import main

    code = main(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; at the interpreter's end it would be a traceback
except KeyboardInterrupt:  # before `main` or after it
    print("interrupted", file=sys.stderr)
    from ifvit.config.exit_codes import ExitCode

    code = ExitCode.CTRL_C
sys.exit(code)
