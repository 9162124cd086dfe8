"The command `namedmask` of the cases, their NM: asks the process of the tests, which has imported everything, for the answer (test_cases.py)."
import os, sys
from multiprocessing.connection import Client

with Client(os.environ['NM_SERVER']) as server:
    server.send((os.getcwd(), sys.argv[1:]))
    said, complaints, code = server.recv()
sys.stdout.write(said)
sys.stdout.flush()
sys.stderr.write(complaints)
sys.exit(code)
