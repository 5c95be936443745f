"""Callbacks for training loops of other libraries; each is imported by its own module's name."""
