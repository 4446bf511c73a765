"""People and what they do, second by second: AVA's files, clips around their keyframes, boxes that follow the crops.

Import from the modules: ``tables`` (files), ``keyframes`` (data set), ``boxes`` (transforms).
"""
