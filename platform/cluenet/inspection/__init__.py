"""`cluenet inspect`: what a dataset on disk holds, before anything is prepared. Starts no Ray and changes nothing.

splits.py   which splits there are, and their rows
facts.py    what is counted over the rows of a split
videos.py   whether the files are there, can be opened, and what they can be recognised by
report.py   all of it as JSON values, with what is wrong
tables.py   the same for people
"""
