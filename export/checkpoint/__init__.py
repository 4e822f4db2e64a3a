"""What comes from outside: a checkpoint's folders, tensors, names and tokenizer."""
