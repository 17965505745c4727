mkdir out; cp index.html out
