from fastapi import FastAPI
from database import x

app: FastAPI = FastAPI(title="x")
