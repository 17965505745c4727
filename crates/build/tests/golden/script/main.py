import os
from http.server import *
HTTPServer(("", int(os.environ["PORT"])), X).serve_forever()
