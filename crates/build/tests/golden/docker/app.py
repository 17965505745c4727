import litestar
app = litestar.Litestar([])
