import os; PORT = os.environ["PORT"]
