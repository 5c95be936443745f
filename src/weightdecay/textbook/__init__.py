"""The textbook experiment: linear regression with too few examples, without and with weight decay."""
