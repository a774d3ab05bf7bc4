"""x"""

ROWS: tuple = ()
