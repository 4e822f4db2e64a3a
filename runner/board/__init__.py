"""An archive for boards: the program kandinsky, built for another machine, MindSpore Lite's libraries and a bundle."""
