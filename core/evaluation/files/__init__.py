"""Query sets, judgements and runs in files: the layouts of BEIR and of TREC.

The format of a file is detected from its content, never from its name. Files are read line by line, gzipped or
not, and errors name file and line.
"""
