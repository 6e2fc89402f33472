"""What an export is made of: GGUF with its vocabulary, Modelfile, model card, and the way to the hub."""
