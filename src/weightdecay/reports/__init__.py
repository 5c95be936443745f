"""What a person sees: figures, and curves that grow in a terminal or a notebook."""
