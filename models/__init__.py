"""The five parts of Kandinsky 2.2 as MindSpore cells that compile in graph mode."""
