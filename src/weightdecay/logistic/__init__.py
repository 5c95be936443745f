"""The path of logistic and multinomial regression over λ: solver, leave-one-out, evidence."""
