from litestar import Litestar, get

app = Litestar([])
