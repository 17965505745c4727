from fastapi import FastAPI
import database
app = FastAPI()
