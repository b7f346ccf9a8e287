"""The literature's claims as experiments: ``numpylrp reproduce NAME --out DIR``.

Each measures methods on trained networks and test images, keeps every measured piece as a file of its own (a
run that was stopped goes on where it was), and says for each claim of a paper whether it holds here.
"""
