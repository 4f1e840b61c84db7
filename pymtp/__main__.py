"""python -m pymtp"""
from .cli import main

main()
